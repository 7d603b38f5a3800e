//! Partitions of bootstraps: two small keys under one GLWE key. The noise of each is as predicted, files of both go around,
//! and what does not fit is refused.

mod support;

use support::*;
use tacit_client::{ClientKey, EncodedRow, decrypt, encrypt};
use tacit_ir::artifact::{Container, Kind, SectionId};
use tacit_ir::diag::Code;
use tacit_ir::interp::plan::{check, check_layout, evaluate};
use tacit_ir::noise::bootstrap as noise_of;
use tacit_ir::params::{BootstrapParams, GadgetParams, LweParams};
use tacit_ir::plan::{Layer, Layout, Network, Plan};
use tacit_runtime::{Circuit, EvaluationKey, run};

const COUNT: u32 = 512;

/// Inputs come under the second partition's small key; the first one's arguments are switched to its own.
fn two_partitions() -> (Layout, Plan) {
    let gadget = |base_log, levels| GadgetParams { base_log, levels };
    let switched = BootstrapParams {
        lwe: LweParams::secure(840, 3),
        keyswitch: Some(gadget(4, 3)),
        gadget: gadget(16, 2),
        small_dimension: 0,
    };
    let fresh =
        BootstrapParams { lwe: LweParams::secure(768, 3), keyswitch: None, gadget: gadget(23, 1), small_dimension: 3 };
    let layout = Layout {
        gadget: None,
        selectors: 0,
        packed_inputs: 0,
        result_slots: vec![],
        result_bits: 32,
        partitions: vec![switched, fresh],
        small_inputs: COUNT.div_ceil(256),
        lwe_results: vec![COUNT, COUNT],
        ..layout(2, 1024, 23, 1)
    };
    // The argument itself, whose noise is what the argument has, and a constant, which has that of the blind rotation alone.
    let tables = vec![(0..1024).map(|at| at << 21).collect(), vec![1 << 30; 1024]];
    let table: Vec<u32> = (0..COUNT).map(|element| element % 2).collect();
    let bootstrap = |partition, operand| Layer::Bootstrap {
        partition,
        operand,
        results: 1,
        tables: tables.clone(),
        table: table.clone(),
    };
    let layers = vec![Layer::Samples { small: true, first: 0, count: COUNT }, bootstrap(1, 0), bootstrap(0, 1)];
    let network = Network { layers, results: vec![1, 2], ..Network::default() };
    (layout, Plan { network, ..Plan::default() })
}

/// Arguments from a tenth to four tenths of a turn.
fn messages(layout: &Layout) -> EncodedRow {
    let mut row = EncodedRow::zeros(layout);
    for (at, value) in row.small.iter_mut().flatten().enumerate() {
        let turns = 0.1 + 0.3 * (at as f64 * 0.618).fract();
        *value = (turns * 64f64.exp2()) as u64;
    }
    row
}

#[test]
fn each_partition_is_as_noisy_as_predicted() {
    let (layout, plan) = two_partitions();
    let circuit = Circuit::new(layout.clone(), plan.clone(), DIGEST).unwrap();
    let row = messages(&layout);
    let exact: Vec<u64> = row.small.iter().flatten().copied().collect();
    // Squares of errors: by layer, and by table.
    let mut measured = [[0.0; 2]; 2];
    let keys = 2;
    for _ in 0..keys {
        let key = ClientKey::generate(&layout, DIGEST).unwrap();
        let again = ClientKey::from_bytes(&key.to_bytes(None).unwrap(), None).unwrap();
        let file = again.evaluation_key().unwrap().unwrap();
        let evaluation_key = EvaluationKey::from_bytes(&file, &layout, &DIGEST).unwrap();
        let result = run(&circuit, &encrypt(&key, std::slice::from_ref(&row)).unwrap(), Some(&evaluation_key)).unwrap();
        let found = &decrypt(&key, &result).unwrap()[0];
        for element in 0..COUNT as usize {
            let table = element % 2;
            let constant = 1u64 << 62;
            let before = [exact[element], found[0][element]];
            for layer in 0..2 {
                let right = if table == 0 { before[layer] } else { constant };
                let error = found[layer][element].wrapping_sub(right) as i64 as f64 * (-64f64).exp2();
                measured[layer][table] += error * error / f64::from(keys * COUNT / 2);
            }
        }
    }
    for (layer, (partition, own, small)) in
        [(1, layout.partitions[1].lwe.variance(), true), (0, 0.0, false)].into_iter().enumerate()
    {
        let params = &layout.partitions[partition];
        let rotation = noise_of::blind_rotation(&layout.glwe, params);
        let argument = noise_of::argument(&layout.glwe, params, own, small, 1) + rotation;
        for (what, measured, predicted) in
            [("argument", measured[layer][0], argument), ("rotation", measured[layer][1], rotation)]
        {
            let ratio = (measured / predicted).sqrt();
            assert!((0.8..1.25).contains(&ratio), "partition {partition}, {what}: {ratio:.2}");
        }
    }
}

/// The first of several results is the argument itself, the others are constants: their errors are as predicted, alone and
/// added to each other.
#[test]
fn results_of_one_rotation_are_as_noisy_as_predicted() {
    let (mut layout, _) = two_partitions();
    layout.partitions.remove(0);
    let params = layout.partitions[0];
    let row = messages(&layout);
    let exact: Vec<u64> = row.small.iter().flatten().copied().collect();
    let constant = 1u32 << 30;
    for results in [2, 4, 8] {
        let table = (0..1024u32).map(|at| if at % results == 0 { at << 21 } else { constant }).collect();
        let layers = vec![
            Layer::Samples { small: true, first: 0, count: COUNT },
            Layer::Bootstrap { partition: 0, operand: 0, results, tables: vec![table], table: vec![0; COUNT as usize] },
        ];
        layout.lwe_results = vec![COUNT * results];
        let plan = Plan { network: Network { layers, results: vec![1], ..Network::default() }, ..Plan::default() };
        let circuit = Circuit::new(layout.clone(), plan.clone(), DIGEST).unwrap();
        // Of arguments, of constants, of sums and of differences of two of them.
        let mut measured = [0.0; 4];
        let keys = 2;
        for _ in 0..keys {
            let key = ClientKey::generate(&layout, DIGEST).unwrap();
            let file = key.evaluation_key().unwrap().unwrap();
            let evaluation_key = EvaluationKey::from_bytes(&file, &layout, &DIGEST).unwrap();
            let query = encrypt(&key, std::slice::from_ref(&row)).unwrap();
            let found = decrypt(&key, &run(&circuit, &query, Some(&evaluation_key)).unwrap()).unwrap();
            let error = |found: u64, right: u64| found.wrapping_sub(right) as i64 as f64 * (-64f64).exp2();
            for (found, exact) in found[0][0].chunks(results as usize).zip(&exact) {
                let of_constants: Vec<f64> =
                    found[1..].iter().map(|&at| error(at, u64::from(constant) << 32)).collect();
                let last = of_constants[of_constants.len() - 1];
                // Two results leave one constant only; its neighbour's error is that of the argument.
                let other = if results > 2 { of_constants[0] } else { f64::NAN };
                let errors = [error(found[0], *exact), last, last + other, last - other];
                for (sum, error) in measured.iter_mut().zip(errors) {
                    *sum += error * error / f64::from(keys * COUNT);
                }
            }
        }
        let rotation = noise_of::blind_rotation(&layout.glwe, &params);
        let argument = noise_of::argument(&layout.glwe, &params, params.lwe.variance(), true, results) + rotation;
        let two = 2.0 * noise_of::result_in_sums(&layout.glwe, &params, 2);
        let ratio = |at: usize, predicted: f64| (measured[at] / predicted).sqrt();
        let alone = [ratio(0, argument), ratio(1, rotation)];
        assert!(alone.iter().all(|ratio| (0.8..1.25).contains(ratio)), "{results} results: {alone:?}");
        if results > 2 {
            // The bound holds for either sign, and the worse of both comes near it.
            let added = ratio(2, two).max(ratio(3, two));
            assert!((0.7..1.15).contains(&added), "{results} results added: {added}");
        }
        // In clear the first result is the argument, cut to multiples of its step.
        let clear = evaluate(&plan, &layout, &row.inputs()).unwrap();
        let step = u64::from(results) << 53;
        for (found, exact) in clear[0].chunks(results as usize).zip(&exact) {
            assert!(found[0].wrapping_sub(*exact).wrapping_add(step / 2) <= step, "{results} results");
            assert!(found[1..].iter().all(|&at| at == u64::from(constant) << 32));
        }
    }
    let refused = |results| {
        let (layout, mut plan) = two_partitions();
        let Layer::Bootstrap { results: own, .. } = &mut plan.network.layers[2] else { panic!("a bootstrap") };
        *own = results;
        check(&plan, &layout).unwrap_err().code == Code::NotConformant
    };
    assert!([0, 3, 16].into_iter().all(refused));
}

#[test]
fn evaluation_keys_that_do_not_fit_are_refused() {
    let (layout, plan) = two_partitions();
    let key = ClientKey::generate(&layout, DIGEST).unwrap();
    let file = key.evaluation_key().unwrap().unwrap();
    let code = |bytes: &[u8], layout: &Layout| {
        EvaluationKey::from_bytes(bytes, layout, &DIGEST).err().map(|why: tacit_ir::diag::Diagnostic| why.code)
    };
    assert_eq!(code(&file, &layout), None);
    // Another set in one partition, the partitions in another order, and one of them alone.
    let mut other = layout.clone();
    other.partitions[0].lwe = LweParams::secure(864, 3);
    let mut turned = layout.clone();
    turned.partitions.reverse();
    let mut single = layout.clone();
    single.partitions.remove(0);
    for other in [&other, &turned, &single] {
        assert_eq!(code(&file, other), Some(Code::NotConformant));
        let theirs = ClientKey::generate(other, DIGEST).unwrap().evaluation_key().unwrap().unwrap();
        assert_eq!(code(&theirs, &layout), Some(Code::NotConformant));
        // Nor behind the right header.
        let mut mixed = Container::read(&theirs, &[Kind::EvaluationKey], u64::MAX).unwrap();
        let ours = Container::read(&file, &[Kind::EvaluationKey], u64::MAX).unwrap();
        let header = |container: &Container| {
            container.sections.iter().position(|(id, _)| *id == SectionId::HEADER).expect("a header")
        };
        let at = header(&mixed);
        mixed.sections[at].1 = ours.sections[header(&ours)].1.clone();
        let same_length = other.partitions.len() == layout.partitions.len() && *other == turned;
        assert!(same_length || code(&mixed.write(), &layout) == Some(Code::NotConformant));
    }
    // Of another circuit, and handed to one.
    let why = EvaluationKey::from_bytes(&file, &layout, &[7; 32]).unwrap_err();
    assert_eq!(why.code, Code::OtherCircuit);
    let evaluation_key = EvaluationKey::from_bytes(&file, &layout, &DIGEST).unwrap();
    let circuit = Circuit::new(layout.clone(), plan, [7; 32]).unwrap();
    let stranger = ClientKey::generate(&layout, [7; 32]).unwrap();
    let query = encrypt(&stranger, &[messages(&layout)]).unwrap();
    assert_eq!(run(&circuit, &query, Some(&evaluation_key)).unwrap_err().code, Code::OtherCircuit);
}

#[test]
fn partitions_that_do_not_fit_are_refused() {
    let (layout, plan) = two_partitions();
    check(&plan, &layout).unwrap();
    let row = messages(&layout);
    assert_eq!(evaluate(&plan, &layout, &row.inputs()).unwrap().len(), 2);
    let refused = |change: &dyn Fn(&mut Layout, &mut Plan)| {
        let (mut layout, mut plan) = (layout.clone(), plan.clone());
        change(&mut layout, &mut plan);
        check(&plan, &layout).unwrap_err().code == Code::NotConformant
    };
    let set = |plan: &mut Plan, layer: usize, to: u32| {
        let Layer::Bootstrap { partition, .. } = &mut plan.network.layers[layer] else { panic!("a bootstrap") };
        *partition = to;
    };
    // Out of range, inputs in the partition of another key, an argument to switch without a keyswitch.
    assert!(refused(&|_, plan| set(plan, 2, 2)));
    assert!(refused(&|_, plan| set(plan, 1, 0)));
    assert!(refused(&|_, plan| set(plan, 2, 1)));
    // Coefficients of a slot that nothing writes.
    assert!(refused(&|_, plan| plan.network.layers[0] = Layer::SampleExtract { slot: 0, count: COUNT }));
    // Inputs under two keys, under none, a weak small key, too many.
    assert!(refused(&|layout, _| layout.partitions[0].small_dimension = 105));
    assert!(refused(&|layout, _| layout.partitions[1].small_dimension = 0));
    assert!(refused(&|layout, _| layout.partitions[0].lwe.log2_std -= 1.0));
    assert!(refused(&|layout, _| layout.partitions = vec![layout.partitions[1]; 40]));
    let mut weak = layout.clone();
    weak.partitions[0].lwe.log2_std -= 1.0;
    assert_eq!(check_layout(&weak).unwrap_err().code, Code::NotConformant);
    assert_eq!(ClientKey::generate(&weak, DIGEST).unwrap_err().code, Code::NotConformant);
}
