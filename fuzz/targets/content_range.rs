#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| registry::fuzzing::content_range(bytes));
