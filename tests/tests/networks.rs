//! Neural networks: the float interpreter against onnxruntime, the quantized circuit and its encrypted evaluation against
//! the float model, and the drawn noise against the measured one.

use indexmap::IndexMap;
use indicatif::ProgressBar;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rand_distr::StandardNormal;
use std::collections::BTreeSet;
use tacit::commands::encrypted_predictions;
use tacit_client::codec::{Codec, EncodedBatch};
use tacit_client::{ClientKey, decrypt, encrypt};
use tacit_compiler::options::{Options, RegimeRule};
use tacit_ir::artifact::Artifact;
use tacit_ir::interp::network::Draw;
use tacit_ir::interp::plan;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::plan::Layer;
use tacit_runtime::{Circuit, EvaluationKey, run};
use tacit_tests::{Example, first_rows, networks};

/// Class of each row: the label, or the position of the greatest score.
fn classes(outputs: &IndexMap<String, TensorValue>) -> Vec<i64> {
    if let Some(Data::I64(labels)) = outputs.get("label").map(|value| &value.data) {
        return labels.clone();
    }
    let scores = outputs.values().next().unwrap();
    let columns = scores.columns();
    let values = scores.to_f64().unwrap();
    let best = |row: &[f64]| (0..columns).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as i64;
    values.chunks(columns).map(best).collect()
}

fn agreement(a: &[i64], b: &[i64]) -> f64 {
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}

fn expected(example: &Example) -> Vec<i64> {
    classes(&example.expected.clone().into_iter().collect())
}

/// Results of the clear circuit; with `draw`, of the simulated one.
fn evaluate(artifact: &Artifact, batch: &EncodedBatch, mut draw: Option<&mut Draw<'_>>) -> Vec<Vec<Vec<u64>>> {
    let circuit = artifact.plan.as_ref().unwrap();
    let one = |row: &tacit_client::EncodedRow| {
        let draw = draw.as_mut().map(|draw| &mut **draw as &mut Draw<'_>);
        plan::simulate(circuit, &artifact.client.layout, &row.inputs(), draw).unwrap()
    };
    batch.rows.iter().map(one).collect()
}

#[test]
fn the_float_interpreter_equals_onnxruntime() {
    let all = networks();
    assert!(all.len() >= 6, "{} networks", all.len());
    for example in all {
        let difference = example.interpreted_difference();
        assert_eq!(difference.labels, 0, "{}", example.name);
        let scale = example.scale();
        assert!(difference.floats <= 5e-6 * scale, "{}: {difference:?} at scale {scale}", example.name);
    }
}

/// Every test row, in clear and with the predicted noise drawn: at most two in a hundred classes differ from the float
/// model's.
#[test]
fn quantized_and_simulated_circuits_agree_with_the_float_model() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for example in networks() {
        let compiled = example.compile(&Options::default()).unwrap();
        let codec = Codec::new(&compiled.artifact).unwrap();
        let batch = codec.encode(&example.inputs(&codec).unwrap()).unwrap();
        let expected = expected(&example);
        let clear = codec.decode(&evaluate(&compiled.artifact, &batch, None), &batch.passed).unwrap();
        let clear = agreement(&classes(&clear), &expected);
        let mut draw = |std: f64| std * rng.sample::<f64, _>(StandardNormal);
        let simulated = codec.decode(&evaluate(&compiled.artifact, &batch, Some(&mut draw)), &batch.passed).unwrap();
        let simulated = agreement(&classes(&simulated), &expected);
        assert!(clear >= 0.98 && simulated >= 0.98, "{}: clear {clear}, simulated {simulated}", example.name);
    }
}

/// Encrypted under 128-bit parameters: classes agree with the float model's, and the errors of the results against the
/// clear circuit have a deviation as simulations have.
#[test]
fn encrypted_networks_agree_with_the_simulation() {
    for example in networks() {
        agrees_with_the_simulation(&example, &Options::default());
    }
}

fn agrees_with_the_simulation(example: &Example, options: &Options) {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let compiled = example.compile(options).unwrap();
    let layout = &compiled.artifact.client.layout;
    assert!(layout.glwe.is_secure() && layout.partitions.iter().all(|params| params.lwe.is_secure()));
    // Errors of one row's outputs are not independent, so rows are what counts.
    let rows = 12;
    let codec = Codec::new(&compiled.artifact).unwrap();
    let inputs = first_rows(&example.inputs(&codec).unwrap(), rows);
    let batch = codec.encode(&inputs).unwrap();
    let (evaluation, passed) =
        encrypted_predictions(&compiled.artifact, &codec, &inputs, &ProgressBar::hidden()).unwrap();
    let outputs = codec.decode(&evaluation.results, &passed).unwrap();
    let agreed = agreement(&classes(&outputs), &expected(example)[..rows]);
    assert!(agreed >= 0.9, "{}: {agreed}", example.name);
    let clear = evaluate(&compiled.artifact, &batch, None);
    let deviation = |found: &[Vec<Vec<u64>>]| {
        let pairs = found.iter().flatten().flatten().zip(clear.iter().flatten().flatten());
        let squares: Vec<f64> =
            pairs.map(|(a, b)| (a.wrapping_sub(*b) as i64 as f64 * (-64f64).exp2()).powi(2)).collect();
        (squares.iter().sum::<f64>() / squares.len() as f64).sqrt()
    };
    let mut draw = |std: f64| std * rng.sample::<f64, _>(StandardNormal);
    // Errors of a row depend on each other: how far a deviation of so few rows strays is seen in the simulations.
    let simulations: Vec<f64> =
        (0..20).map(|_| deviation(&evaluate(&compiled.artifact, &batch, Some(&mut draw)))).collect();
    let (least, most) = simulations.iter().fold((f64::MAX, 0.0f64), |(a, b), std| (a.min(*std), b.max(*std)));
    let measured = deviation(&evaluation.results);
    let usual = least / 1.5..1.5 * most;
    assert!(usual.contains(&measured), "{}: measured {measured:e}, simulated {least:e} to {most:e}", example.name);
}

/// With every layer bootstrapped, these networks take two partitions: small keys of their own for the layers that read inputs,
/// and for a deeper one. Classes and noise, single activations of each partition included, are as simulated.
#[test]
fn networks_of_two_partitions_agree_with_the_simulation() {
    let options = Options { regime: Some(RegimeRule::Bootstrap), ..Options::default() };
    for name in ["digits_mlp_deep", "breast_cancer_residual_mlp"] {
        let example = networks().into_iter().find(|example| example.name == name).unwrap();
        let layout = example.compile(&options).unwrap().artifact.client.layout;
        assert!(layout.partitions.len() >= 2, "{name}: {:?}", layout.partitions);
        let dimensions: BTreeSet<u32> = layout.partitions.iter().map(|params| params.lwe.dimension).collect();
        assert_eq!(dimensions.len(), layout.partitions.len(), "{name}");
        agrees_with_the_simulation(&example, &options);
        let single = example.compile(&Options { partitions: 1, ..options.clone() }).unwrap().artifact.client.layout;
        assert_eq!(single.partitions.len(), 1, "{name}");
        // The other one has too few outputs for a distribution.
        if name == "digits_mlp_deep" {
            activations_are_as_simulated(&example, &options);
        }
    }
}

/// At least 300 rows of a network of both regimes: the encrypted accuracy lies among those of simulations that draw the
/// predicted noise.
#[test]
fn simulated_and_encrypted_accuracy_agree() {
    let example = networks().into_iter().find(|example| example.name == "digits_mlp_deep").unwrap();
    let compiled = example.compile(&Options::default()).unwrap();
    let codec = Codec::new(&compiled.artifact).unwrap();
    let rows = 300;
    let inputs = first_rows(&example.inputs(&codec).unwrap(), rows);
    let batch = codec.encode(&inputs).unwrap();
    let labels = tacit::data::read_npy(&example.folder.join("y_test.npy")).unwrap().to_f64().unwrap();
    let labels: Vec<i64> = labels[..rows].iter().map(|label| *label as i64).collect();
    let accuracy =
        |results: &[Vec<Vec<u64>>]| agreement(&classes(&codec.decode(results, &batch.passed).unwrap()), &labels);
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let mut draw = |std: f64| std * rng.sample::<f64, _>(StandardNormal);
    let simulated: Vec<f64> =
        (0..20).map(|_| accuracy(&evaluate(&compiled.artifact, &batch, Some(&mut draw)))).collect();
    let mean = simulated.iter().sum::<f64>() / 20.0;
    let deviation = (simulated.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / 19.0).sqrt();
    let (evaluation, _) = encrypted_predictions(&compiled.artifact, &codec, &inputs, &ProgressBar::hidden()).unwrap();
    let encrypted = accuracy(&evaluation.results);
    // One row more or less is what a deviation of zero may hide.
    let tolerance = 4.0 * deviation + 1.0 / rows as f64;
    assert!(
        (encrypted - mean).abs() <= tolerance,
        "encrypted {encrypted}, simulated {mean} with deviation {deviation}"
    );
}

/// The errors of single activations, against the clear circuit, have the distribution that is simulated, in every layer: the
/// Kolmogorov-Smirnov distance from the simulations is at most twice the largest of a simulation from the others. Errors of
/// one row depend on each other, so that tables of the distance's quantiles are of no use.
#[test]
fn single_activations_have_the_simulated_distribution() {
    let example = networks().into_iter().find(|example| example.name == "digits_mlp_deep").unwrap();
    activations_are_as_simulated(&example, &Options::default());
}

fn activations_are_as_simulated(example: &Example, options: &Options) {
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let whole = example.compile(options).unwrap().artifact;
    let batch = {
        let codec = Codec::new(&whole).unwrap();
        codec.encode(&first_rows(&example.inputs(&codec).unwrap(), 10)).unwrap()
    };
    let network = &whole.plan.as_ref().unwrap().network;
    let mut tested = Vec::new();
    for (at, (layer, small)) in network.layers.iter().zip(network.small()).enumerate() {
        // The noise of samples under the GLWE key is less than a unit of the 32-bit torus.
        if small || matches!(layer, Layer::Samples { .. }) {
            continue;
        }
        // The same circuit, ending in this layer.
        let mut part = whole.clone();
        part.plan.as_mut().unwrap().network.results = vec![at as u32];
        part.client.layout.lwe_results = vec![layer.len() as u32];
        // Results are rounded to what their own noise allows; other layers' may be less.
        part.client.layout.result_bits = 32;
        let (layout, plan) = (part.client.layout.clone(), part.plan.clone().unwrap());
        let circuit = Circuit::new(layout.clone(), plan, part.digest).unwrap();
        let key = ClientKey::generate(&layout, part.digest).unwrap();
        let file = key.evaluation_key().unwrap().unwrap();
        let evaluation_key = EvaluationKey::from_bytes(&file, &layout, &part.digest).unwrap();
        let result = run(&circuit, &encrypt(&key, &batch.rows).unwrap(), Some(&evaluation_key)).unwrap();
        let clear = evaluate(&part, &batch, None);
        let errors = |found: &[Vec<Vec<u64>>]| -> Vec<f64> {
            let pairs = found.iter().flatten().flatten().zip(clear.iter().flatten().flatten());
            pairs.map(|(a, b)| a.wrapping_sub(*b) as i64 as f64).collect()
        };
        let encrypted = errors(&decrypt(&key, &result).unwrap());
        let mut draw = |std: f64| std * rng.sample::<f64, _>(StandardNormal);
        let simulated: Vec<Vec<f64>> = (0..20).map(|_| errors(&evaluate(&part, &batch, Some(&mut draw)))).collect();
        let others = |without: usize| simulated.iter().enumerate().filter(move |(at, _)| *at != without);
        let from_others = |found: &[f64], without: usize| {
            kolmogorov_smirnov(found.to_vec(), others(without).flat_map(|(_, errors)| errors.clone()).collect())
        };
        let usual = simulated.iter().enumerate().map(|(at, errors)| from_others(errors, at)).fold(0.0, f64::max);
        let distance = from_others(&encrypted, usize::MAX);
        assert!(encrypted.len() >= 100 && distance <= 2.0 * usual, "layer {at}: {distance}, simulations {usual}");
        tested.push(at);
    }
    assert!(tested.len() >= 4, "layers {tested:?}");
}

/// The largest distance of two empirical distribution functions.
fn kolmogorov_smirnov(mut a: Vec<f64>, mut b: Vec<f64>) -> f64 {
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let below = |all: &[f64], x: f64| all.partition_point(|value| *value <= x) as f64 / all.len() as f64;
    a.iter().chain(&b).map(|&x| (below(&a, x) - below(&b, x)).abs()).fold(0.0, f64::max)
}
