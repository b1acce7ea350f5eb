//! What sources give, and what they refuse.

use proptest::prelude::*;

use super::*;

fn file(content: &[u8]) -> (tempfile::TempDir, SecretSource) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, content).unwrap();
    (dir, SecretSource::new("file:token", Place::File(path)))
}

async fn why(source: &SecretSource) -> Why {
    match source.fetch().await {
        Ok(_) => panic!("it gives a secret"),
        Err(error) => error.why,
    }
}

#[tokio::test]
async fn a_file_is_its_text_without_the_line_break() {
    let (dir, source) = file(b"s3cret\r\n");
    assert!(source.fetch().await.unwrap().matches("s3cret"));
    assert_eq!(source.cache(), Some(FILE));
    std::fs::write(dir.path().join("token"), "another").unwrap();
    assert!(source.fetch().await.unwrap().matches("another"));
}

#[tokio::test]
async fn what_is_no_secret_is_an_error_that_names_its_source_and_quotes_nothing() {
    for content in ["", "\n", " \t\n"] {
        assert_eq!(why(&file(content.as_bytes()).1).await, Why::Empty, "{content:?}");
    }
    for content in ["hunter2\nhunter3", "hunter2\0", "hunter2\u{7f}", "hunter2\u{85}"] {
        let (_dir, source) = file(content.as_bytes());
        let error = source.fetch().await.map(drop).unwrap_err();
        assert_eq!(error.why, Why::Control, "{content:?}");
        let text = format!("{error} {error:?} {source:?}");
        assert!(text.contains("file:token") && !text.contains("hunter"), "{text}");
    }
    assert_eq!(why(&file(b"\xff\xfe").1).await, Why::NotText);
    assert_eq!(why(&file(&vec![b'x'; LONGEST + 1]).1).await, Why::TooLong);
    let (dir, source) = file(b"x");
    drop(dir);
    assert!(matches!(why(&source).await, Why::Missing(_)));
    let fixed = SecretSource::new("env:EMPTY", Place::Fixed(Secret::new("")));
    assert_eq!(fixed.read_now().map(drop).unwrap_err().why, Why::Empty);
}

#[test]
fn a_bound_is_for_what_can_change() {
    let (_dir, source) = file(b"x");
    let minute = Some(Duration::from_secs(60));
    assert_eq!(source.clone().kept_for(minute).cache(), minute);
    assert_eq!(source.kept_for(None).cache(), Some(FILE));
    let fixed = SecretSource::new("env:X", Place::Fixed(Secret::new("x")));
    assert_eq!(fixed.kept_for(minute).cache(), None);
}

#[test]
fn a_field_is_a_text_of_an_object() {
    let of =
        |text: &str, name: Option<&str>| field(text, name).map(|secret| secret.expose().to_owned());
    assert_eq!(of("{\"a\":1}", None), Ok("{\"a\":1}".to_owned()));
    assert_eq!(of("{\"a\":\"x\"}", Some("a")), Ok("x".to_owned()));
    assert_eq!(of("{\"a\":1}", Some("a")), Err(Why::NotText));
    assert!(matches!(of("{\"a\":1}", Some("b")), Err(Why::Missing(_))));
    assert!(matches!(of("hunter2", Some("b")), Err(Why::Missing(why)) if !why.contains("hunter")));
}

#[test]
fn addresses_have_a_shape() {
    for good in ["secret/crm#token", "kv/team/crm/prod#api.key"] {
        assert!(good.parse::<vault::Address>().is_ok(), "{good}");
    }
    for bad in ["", "secret/crm", "secret#token", "/crm#t", "secret//x#t", "secret/../x#t", "s/x#"]
    {
        assert!(bad.parse::<vault::Address>().is_err(), "{bad}");
    }
    let arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:crm-AbCdEf#token";
    for good in ["prod/crm", arn] {
        assert!(good.parse::<aws::Address>().is_ok(), "{good}");
    }
    for bad in ["", "a b", "x#", "\"x"] {
        assert!(bad.parse::<aws::Address>().is_err(), "{bad}");
    }
    for (text, good) in [("crm-token", true), ("crm#f", true), ("", false), ("a/b", false)] {
        assert_eq!(text.parse::<azure::Address>().is_ok(), good, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_is_an_address_that_leaves_its_place(text in "[ -~]{0,40}|[a-z/.#%:]{0,12}") {
        let _none_panics = text.parse::<aws::Address>().is_ok();
        if text.parse::<azure::Address>().is_ok() {
            let name = text.split('#').next().unwrap();
            prop_assert!(!name.contains(['/', '.', '%', '?']), "{text}");
        }
        if text.parse::<vault::Address>().is_ok() {
            let path = text.rsplit_once('#').unwrap().0;
            prop_assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{text}");
        }
    }

    #[test]
    fn what_is_usable_can_stand_in_a_header_or_is_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        if let Ok(secret) = text(bytes).and_then(usable) {
            prop_assert!(!secret.expose().trim().is_empty());
            prop_assert!(!secret.expose().contains(['\r', '\n', '\0']));
        }
    }
}
