//! IR text of any stage: what parses prints, and what was printed parses to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tacit_compiler::passes::{parse_ir, print_ir};

fuzz_target!(|text: &str| {
    let Ok(ir) = parse_ir(text) else { return };
    let printed = print_ir(&ir);
    match parse_ir(&printed) {
        // Printing again tells what `==` does not: NaN.
        Ok(again) => assert_eq!(print_ir(&again), printed),
        Err(why) => panic!("{why}\n{printed}"),
    }
});
