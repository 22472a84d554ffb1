#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| labrun::fuzz::run("plan", data));
