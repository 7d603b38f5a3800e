//! The body of a request, as the server reads its headers and splits it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tacit_ir::artifact::envelope::{Head, Request};

fuzz_target!(|data: &[u8]| {
    let head = Head::read(data);
    let Ok(request) = Request::read(data) else { return };
    // What splits begins with the header that was read alone, and is written back as it came.
    assert!(head.is_ok());
    let key = request.key.map(|(header, file)| [&header.write()[..], file].concat()).unwrap_or_default();
    assert_eq!([&key[..], &request.header.write(), request.query].concat(), data);
});
