//! Whole messages through the engine.

use super::*;

fn masker() -> Masker {
    Masker::new(&Rules::default()).unwrap()
}

#[test]
fn smoke() {
    let (out, findings) = masker().json(br#"{"ssn":"078-05-1120"}"#).unwrap();
    assert_eq!(out, br#"{"ssn":"***-**-1120"}"#);
    assert_eq!(findings.len(), 1);
}
