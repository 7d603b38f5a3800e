//! Keys, queries and results: what is damaged, oversized, of another kind or of another circuit is refused, each with
//! its own code.

mod support;

use std::sync::Arc;
use support::*;
use tacit_client::{ClientKey, decrypt, encrypt};
use tacit_ir::artifact::v1::BatchHeader;
use tacit_ir::artifact::{Container, FORMAT_VERSION, Kind, SectionId, View, decode, encode};
use tacit_ir::diag::Code;
use tacit_ir::plan::{Layout, Plan};
use tacit_runtime::{ArrivingQuery, Circuit, Query, run};

struct Files {
    layout: Layout,
    plan: Plan,
    circuit: Arc<Circuit>,
    key: ClientKey,
    key_file: Vec<u8>,
    query: Vec<u8>,
    result: Vec<u8>,
}

fn files() -> Files {
    let mut layout = layout(7, 256, 8, 2);
    layout.selectors = 2;
    layout.packed_inputs = 1;
    layout.result_slots = vec![2];
    layout.result_bits = 30;
    let form = packed(&[(0, 1, 3)]);
    let plan = plan(0, vec![tacit_ir::plan::Step::Sum { out: tacit_ir::plan::Slot::Shared(0), form }]);
    let circuit = Arc::new(Circuit::new(layout.clone(), plan.clone(), DIGEST).unwrap());
    let key = ClientKey::generate(&layout, DIGEST).unwrap();
    let query = encrypt(&key, &[row(&layout, &mut rng())]).unwrap();
    let result = run(&circuit, &query, None).unwrap();
    let key_file = key.to_bytes(None).unwrap().to_vec();
    Files { layout, plan, circuit, key, key_file, query, result }
}

/// Reads each file with its reader and gives the code of the error.
type Reader<'a> = (&'static str, &'a [u8], Box<dyn Fn(&[u8]) -> Option<Code> + 'a>);

fn readers(files: &Files) -> [Reader<'_>; 3] {
    [
        (
            "key",
            files.key_file.as_slice(),
            Box::new(|bytes| ClientKey::from_bytes(bytes, None).err().map(|why| why.code)),
        ),
        (
            "query",
            files.query.as_slice(),
            Box::new(move |bytes| run(&files.circuit, bytes, None).err().map(|why| why.code)),
        ),
        (
            "result",
            files.result.as_slice(),
            Box::new(move |bytes| decrypt(&files.key, bytes).err().map(|why| why.code)),
        ),
    ]
}

#[test]
fn sound_files_are_read() {
    let files = files();
    for (name, bytes, read) in readers(&files) {
        assert_eq!(read(bytes), None, "{name}");
    }
    let again = ClientKey::from_bytes(&files.key_file, None).unwrap();
    assert_eq!(*again.to_bytes(None).unwrap(), files.key_file);
    assert_eq!(decrypt(&again, &files.result).unwrap(), decrypt(&files.key, &files.result).unwrap());
    again.check(&files.layout, &DIGEST).unwrap();
}

#[test]
fn any_cut_and_any_changed_byte_is_found() {
    let files = files();
    for (name, bytes, read) in readers(&files) {
        // Every position of the header, and steps through the rest.
        for at in (0..400.min(bytes.len())).chain((400..bytes.len()).step_by(997)) {
            let code = read(&bytes[..at]);
            assert!(matches!(code, Some(Code::FileCorrupted | Code::NotTacitFile)), "{name} cut at {at}: {code:?}");
            let mut changed = bytes.to_vec();
            changed[at] ^= 0x10;
            let code = read(&changed);
            let known = [Code::FileCorrupted, Code::NotTacitFile, Code::FormatVersion, Code::WrongFileKind];
            assert!(code.is_some_and(|code| known.contains(&code)), "{name} changed at {at}: {code:?}");
        }
        let longer = [bytes, &[0]].concat();
        assert_eq!(read(&longer), Some(Code::FileCorrupted), "{name} with a byte more");
        assert_eq!(read(b""), Some(Code::NotTacitFile), "{name} of nothing");
        assert_eq!(read(b"PK\x03\x04 something else"), Some(Code::NotTacitFile), "{name}");
        let mut newer = bytes.to_vec();
        for version in [FORMAT_VERSION - 1, FORMAT_VERSION + 1] {
            newer[9..11].copy_from_slice(&version.to_le_bytes());
            assert_eq!(read(&newer), Some(Code::FormatVersion), "{name}");
        }
    }
}

/// The error of a query that arrives in chunks: `length` bytes of so many rows are announced.
fn arrival(circuit: &Arc<Circuit>, rows: u32, length: usize, bytes: &[u8]) -> Option<Code> {
    let arrive = || {
        let mut query = ArrivingQuery::new(Arc::clone(circuit), rows, length as u64)?;
        bytes.chunks(1000).try_for_each(|chunk| query.push(chunk, |_| ()))?;
        query.finish()
    };
    arrive().err().map(|why| why.code)
}

#[test]
fn a_query_is_checked_while_it_arrives() {
    let Files { layout, plan, circuit, query, key_file, result, .. } = files();
    let length = query.len();
    assert_eq!(arrival(&circuit, 1, length, &query), None);
    for at in (0..400).chain((400..length).step_by(997)) {
        assert_eq!(arrival(&circuit, 1, length, &query[..at]), Some(Code::FileCorrupted), "ends at {at}");
        let cut = arrival(&circuit, 1, at, &query[..at]);
        assert!(matches!(cut, Some(Code::FileCorrupted)), "cut at {at}: {cut:?}");
        let mut changed = query.clone();
        changed[at] ^= 0x10;
        let code = arrival(&circuit, 1, length, &changed);
        let known = [Code::FileCorrupted, Code::NotTacitFile, Code::FormatVersion, Code::WrongFileKind];
        assert!(code.is_some_and(|code| known.contains(&code)), "changed at {at}: {code:?}");
    }
    let longer = [&query[..], &[0]].concat();
    assert_eq!(arrival(&circuit, 1, length + 1, &longer), Some(Code::FileCorrupted));
    assert_eq!(arrival(&circuit, 1, length, &longer), Some(Code::FileCorrupted));
    assert_eq!(arrival(&circuit, 2, length, &query), Some(Code::FileCorrupted), "no room for two rows");
    assert_eq!(arrival(&circuit, u32::MAX, length, &query), Some(Code::FileCorrupted));
    assert_eq!(arrival(&circuit, 0, length, &query), Some(Code::EnvelopeInvalid));
    for (name, file) in [("key", &key_file), ("result", &result)] {
        let padded = [&file[..], &vec![0; length]].concat();
        assert_eq!(arrival(&circuit, 1, padded.len(), &padded), Some(Code::WrongFileKind), "{name}");
    }
    let other = Arc::new(Circuit::new(layout.clone(), plan, [7; 32]).unwrap());
    assert_eq!(arrival(&other, 1, length, &query), Some(Code::OtherCircuit));

    let original = Container::read(&query, &[Kind::Query], u64::MAX).unwrap();
    let with = |change: &dyn Fn(&mut Container)| {
        let mut changed = original.clone();
        change(&mut changed);
        let bytes = changed.write();
        arrival(&circuit, 1, bytes.len(), &bytes)
    };
    let header = |rows, layout: &Layout| encode(&BatchHeader { rows, layout: layout.clone() }).unwrap();
    let fewer = Layout { body_bits: layout.body_bits - 1, ..layout.clone() };
    assert_eq!(with(&|file| file.sections[0].1 = header(2, &layout)), Some(Code::EnvelopeInvalid));
    assert_eq!(with(&|file| file.sections[0].1 = header(1, &fewer)), Some(Code::NotConformant));
    assert_eq!(with(&|file| file.sections[0].1.push(0)), Some(Code::FileCorrupted));
    assert_eq!(with(&|file| file.sections.reverse()), Some(Code::FileCorrupted), "rows that are not last");
    assert_eq!(with(&|file| drop(file.sections.remove(0))), Some(Code::FileCorrupted), "no header");
    assert_eq!(with(&|file| file.sections.push((SectionId(99), Vec::new()))), None, "an empty section more");
    assert_eq!(with(&|file| file.sections.push((SectionId(99), vec![0]))), Some(Code::FileCorrupted));
}

#[test]
fn files_of_another_kind_or_circuit_are_refused() {
    let files = files();
    let all = readers(&files);
    for (name, _, read) in &all {
        for (other, bytes, _) in &all {
            if name != other {
                assert_eq!(read(bytes), Some(Code::WrongFileKind), "{other} as {name}");
            }
        }
    }
    let other = Circuit::new(files.layout.clone(), files.plan.clone(), [7; 32]).unwrap();
    assert_eq!(run(&other, &files.query, None).unwrap_err().code, Code::OtherCircuit);
    let stranger = ClientKey::generate(&files.layout, [7; 32]).unwrap();
    assert_eq!(decrypt(&stranger, &files.result).unwrap_err().code, Code::OtherCircuit);
    assert_eq!(stranger.check(&files.layout, &DIGEST).unwrap_err().code, Code::OtherCircuit);
}

#[test]
fn the_limit_on_size_comes_before_anything_else() {
    let files = files();
    let length = files.query.len() as u64;
    assert!(View::read(&files.query, &[Kind::Query], length).is_ok());
    let why = View::read(&files.query, &[Kind::Query], length - 1).unwrap_err();
    assert_eq!(why.code, Code::FileTooLarge);
}

#[test]
fn well_formed_files_with_wrong_contents_are_refused() {
    let files = files();
    let sections = |bytes: &[u8]| Container::read(bytes, &[Kind::Query, Kind::Result], u64::MAX).unwrap();
    let code = |container: &Container| Query::read(&files.circuit, &container.write()).err().map(|why| why.code);
    let original = sections(&files.query);
    assert_eq!(code(&original), None);
    let header: BatchHeader = decode(&original.sections[0].1).unwrap();

    let with_header = |header: &BatchHeader| {
        let mut changed = original.clone();
        changed.sections[0].1 = encode(header).unwrap();
        code(&changed)
    };
    for rows in [0, 2, u32::MAX] {
        assert_eq!(with_header(&BatchHeader { rows, ..header.clone() }), Some(Code::NotConformant), "{rows} rows");
    }
    let mut layout = header.layout.clone();
    layout.body_bits -= 1;
    assert_eq!(with_header(&BatchHeader { rows: 1, layout }), Some(Code::NotConformant));

    let mut shorter = original.clone();
    shorter.sections[1].1.pop();
    assert_eq!(code(&shorter), Some(Code::NotConformant));
    let mut missing = original.clone();
    missing.sections.pop();
    assert_eq!(code(&missing), Some(Code::FileCorrupted));
    let mut lying = original.clone();
    // The header ends with the number of results (1), the slots of the one, the result bits, and nothing of a network:
    // claim 2^60 results.
    let kept = lying.sections[0].1.len() - 6;
    assert_eq!(lying.sections[0].1[kept..], [1, 2, 30, 0, 0, 0]);
    lying.sections[0].1.truncate(kept);
    lying.sections[0].1.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10, 2, 30, 0, 0, 0]);
    assert_eq!(code(&lying), Some(Code::FileCorrupted));
    let mut trailing = original;
    trailing.sections[0].1.push(0);
    assert_eq!(code(&trailing), Some(Code::FileCorrupted));
}

#[test]
fn a_row_that_does_not_fit_is_not_encrypted() {
    let files = files();
    let good = row(&files.layout, &mut rng());
    assert_eq!(encrypt(&files.key, &[]).unwrap_err().code, Code::NotConformant);
    let mut few = good.clone();
    few.selectors.pop();
    assert_eq!(encrypt(&files.key, &[good.clone(), few]).unwrap_err().code, Code::NotConformant);
    let mut short = good;
    short.packed[0].pop();
    assert_eq!(encrypt(&files.key, &[short]).unwrap_err().code, Code::NotConformant);
}

#[test]
fn a_passphrase_protects_the_key() {
    let files = files();
    let sealed = files.key.to_bytes(Some("correct horse")).unwrap();
    assert_ne!(*sealed, *files.key.to_bytes(Some("correct horse")).unwrap());
    for wrong in [None, Some("wrong horse")] {
        assert_eq!(ClientKey::from_bytes(&sealed, wrong).unwrap_err().code, Code::KeyUnusable);
    }
    let opened = ClientKey::from_bytes(&sealed, Some("correct horse")).unwrap();
    assert_eq!(*opened.to_bytes(None).unwrap(), files.key_file);
    // No part of the clear key is in the sealed file.
    let clear = View::read(&files.key_file, &[Kind::ClientKey], u64::MAX).unwrap();
    let secret = clear.section(SectionId::KEY).unwrap();
    let end = &secret[secret.len() - 32..];
    assert!(!sealed.windows(32).any(|window| window == end));
    assert!(!format!("{:?}", files.key).contains('['));
}

#[test]
fn weak_parameters_are_refused_everywhere() {
    let files = files();
    let mut weak = files.layout.clone();
    weak.glwe.log2_std -= 3.0;
    assert_eq!(ClientKey::generate(&weak, DIGEST).unwrap_err().code, Code::NotConformant);
    assert_eq!(Circuit::new(weak, files.plan.clone(), DIGEST).unwrap_err().code, Code::NotConformant);
}
