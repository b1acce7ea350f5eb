//! Whole messages through the engine.

use super::*;
use proptest::prelude::*;

fn masker() -> Masker {
    Masker::new(&Rules::default()).unwrap()
}

fn json(raw: &str) -> String {
    String::from_utf8(masker().json(raw.as_bytes()).unwrap().0).unwrap()
}

fn message(raw: &str) -> String {
    let masked = masker().message(&Bytes::from(raw.to_owned())).unwrap();
    String::from_utf8(masked.bytes().to_vec()).unwrap()
}

/// A `tools/call` result with this text block and structured content.
fn tool_result(text: &str, structured: &str) -> String {
    let text = serde_json::Value::from(text);
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{{"type":"text","text":{text}}}],"structuredContent":{structured}}}}}"#
    )
}

/// The text block and the structured content of a result.
fn halves(raw: &str) -> (String, serde_json::Value) {
    let mut value: serde_json::Value = serde_json::from_str(raw).unwrap();
    let text = value["result"]["content"][0]["text"].as_str().unwrap().to_owned();
    (text, value["result"]["structuredContent"].take())
}

#[test]
fn data_shapes() {
    for (what, raw, expected) in [
        (
            "rows",
            r#"[{"id":7,"ssn":"078051120","email":"ada@example.org","amount":12.50}]"#,
            r#"[{"id":7,"ssn":"*****1120","email":"a***@masked.invalid","amount":12.50}]"#,
        ),
        (
            "numbers stay numbers",
            r#"{"ssn":78051120,"card_number":4111111111111111,"mrn":88812345.0,"ssn_count":12345678}"#,
            r#"{"ssn":0,"card_number":0,"mrn":0.0,"ssn_count":12345678}"#,
        ),
        (
            "a card as a number under any name but a thing's",
            r#"{"value":4111111111111111,"order_id":4111111111111111,"big":123456789012345678901234567890}"#,
            r#"{"value":0,"order_id":4111111111111111,"big":123456789012345678901234567890}"#,
        ),
        (
            "booleans and nulls",
            r#"{"email":null,"password":true,"phone":"","ssn":"N/A"}"#,
            r#"{"email":null,"password":true,"phone":"","ssn":"N/A"}"#,
        ),
        (
            "objects and arrays below a sensitive name",
            r#"{"patient_name":{"use":"official","given":["Ada","M"],"family":"King"},"phones":["555 0100"]}"#,
            r#"{"patient_name":{"use":"official","given":["[pii.name masked]","[pii.name masked]"],"family":"[pii.name masked]"},"phones":["[pii.phone masked]"]}"#,
        ),
        (
            "a name beside facts about a person",
            r#"[{"name":"Ada King","email":"a@b.example"},{"name":"report.pdf","size":3}]"#,
            r#"[{"name":"[pii.name masked]","email":"a***@masked.invalid"},{"name":"report.pdf","size":3}]"#,
        ),
        (
            "columns",
            r#"{"rows":[[1,"078051120",true],[2,"219099999",null]],"columns":["order_id","ssn","ok"]}"#,
            r#"{"rows":[[1,"*****1120",true],[2,"*****9999",null]],"columns":["order_id","ssn","ok"]}"#,
        ),
        (
            "columns as objects",
            r#"{"fields":[{"name":"id","type":"int"},{"name":"mrn","type":"text"}],"records":[[1,"X-99"]]}"#,
            r#"{"fields":[{"name":"id","type":"int"},{"name":"mrn","type":"text"}],"records":[[1,"[phi.mrn masked]"]]}"#,
        ),
        (
            "a header row",
            r#"[["id","last_name"],["7","Lovelace"],["8","King"]]"#,
            r#"[["id","last_name"],["7","[pii.name masked]"],["8","[pii.name masked]"]]"#,
        ),
        (
            "name and value pairs",
            r#"[{"key":"DB_PASSWORD","value":"hunter22"},{"name":"region","value":"eu-1"}]"#,
            r#"[{"key":"DB_PASSWORD","value":"[secret.password masked]"},{"name":"region","value":"eu-1"}]"#,
        ),
        (
            "sensitive keys, none lost",
            r#"{"ada@example.org":1,"abe@example.org":2,"a***@masked.invalid":3,"078-05-1120":4}"#,
            r#"{"a***@masked.invalid-2":1,"a***@masked.invalid-3":2,"a***@masked.invalid":3,"***-**-1120":4}"#,
        ),
        (
            "escapes hide nothing",
            r#"{"a":"\u0061da\u0040example.org \ud83d\ude00 \u0030\u003778-05-1120\n","s\u0073n":"\u003078051120"}"#,
            r#"{"a":"a***@masked.invalid \ud83d\ude00 078-05-1120\n","s\u0073n":"*****1120"}"#,
        ),
        (
            "a schema is no value",
            r#"{"properties":{"ssn":{"type":"string","pattern":"^\\d{9}$","minLength":9}}}"#,
            r#"{"properties":{"ssn":{"type":"string","pattern":"^\\d{9}$","minLength":9}}}"#,
        ),
        (
            "bytes around",
            "{ \"x\" : 1.0e2 ,\t\"email\":\"a@b.example\"\n, \"z\":[ ] }",
            "{ \"x\" : 1.0e2 ,\t\"email\":\"a***@masked.invalid\"\n, \"z\":[ ] }",
        ),
    ] {
        // The escape row's middle number reads 07778-05-1120 and is left: see below.
        let expected = expected.replace(" 078-05-1120\\n", " \\u0030\\u003778-05-1120\\n");
        assert_eq!(json(raw), expected, "{what}");
    }
}

#[test]
fn json_within_text() {
    for (text, expected) in [
        (r#"[{"ssn":"078051120"}]"#, r#"[{"ssn":"*****1120"}]"#),
        (
            "Found 2:\n{\"mrn\":\"A-1\"}\n{\"mrn\":\"B-2\"}\nbye",
            "Found 2:\n{\"mrn\":\"[phi.mrn masked]\"}\n{\"mrn\":\"[phi.mrn masked]\"}\nbye",
        ),
        // Cut off: whole rows are read as JSON, the broken one as text.
        (
            r#"[{"ssn":"078051120"},{"ssn":"219099999","pass"#,
            r#"[{"ssn":"*****1120"},{"ssn":"*****9999","pass"#,
        ),
        (r#"{"a":"{\"b\":\"{\\\"ssn\\\":78051120}\"}"}"#, r#"{"a":"{\"b\":\"{\\\"ssn\\\":0}\"}"}"#),
        (r#""{\"password\":\"hunter22\"}""#, r#""{\"password\":\"[secret.password masked]\"}""#),
        (r#"{'email': 'ada@example.org', 'n': 1}"#, r#"{'email': 'a***@masked.invalid', 'n': 1}"#),
        ("[1] see [2]{3} [link](x) [[", "[1] see [2]{3} [link](x) [["),
    ] {
        let raw = serde_json::json!([text]).to_string();
        let wanted = serde_json::json!([expected]).to_string();
        assert_eq!(json(&raw), wanted);
        assert_eq!(masker().text(text).0, expected);
    }
}

#[test]
fn text_and_structured_content_agree() {
    let rows = r#"[{"full_name":"Barbara Rollins","mrn":"A12-345","order_id":321146487}]"#;
    let (text, structured) = halves(&message(&tool_result(rows, rows)));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), structured);
    assert_eq!(structured[0]["order_id"], 321146487);

    let prose = "Barbara Rollins (MRN A12-345) called about order 321146487; ask BarbaraX.";
    let (text, structured) = halves(&message(&tool_result(prose, rows)));
    assert_eq!(
        text,
        "[pii.name masked] (MRN [phi.mrn masked]) called about order 321146487; ask BarbaraX."
    );
    assert_eq!(structured[0]["full_name"], "[pii.name masked]");

    // What text names, structured content does not say either.
    let (text, structured) = halves(&message(&tool_result(
        "password: hunter-2222",
        r#"{"note":"it is hunter-2222","n":1}"#,
    )));
    assert_eq!(text, "password: [secret.password masked]");
    assert_eq!(structured["note"], "it is [secret.password masked]");

    // A number named in one place and bare in another; a thing's number is left alone.
    let (_, structured) = halves(&message(&tool_result(
        "see 88812345",
        r#"{"mrn":88812345,"other":88812345,"order_id":88812345}"#,
    )));
    assert_eq!(structured, serde_json::json!({"mrn": 0, "other": 0, "order_id": 88812345}));
}

/// Protocol positions full of things that would be masked as data.
#[test]
fn protocol_is_never_touched() {
    for raw in [
        r#"{"jsonrpc":"2.0","id":"ada@example.org","method":"tools/call","params":{"name":"mail-ada@example.org","_meta":{"progressToken":"078-05-1120","io.modelcontextprotocol/x":{"ssn":"078051120"}},"requestState":"4111111111111111"}}"#,
        r#"{"jsonrpc":"2.0","id":4111111111111111,"method":"resources/read","params":{"uri":"mailto:ada@example.org"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"ada@example.org"}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":4111111111111111,"progress":1,"total":2}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"mail://ada@example.org"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"ada@example.org","inputSchema":{"properties":{"ssn":{"default":"078-05-1120"}}},"outputSchema":{"x":"ada@example.org"}}],"nextCursor":"ada@example.org"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{"password":"hunter22"},"serverInfo":{"name":"ada@example.org","version":"1"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"image","data":"AKIAZ2QX7YJ5KD3WLM6P","mimeType":"image/png"},{"type":"resource_link","uri":"mail://ada@example.org","name":"x"},{"type":"resource","resource":{"uri":"mail://ada@example.org","blob":"QUtJQVoyUVg3WUo1S0QzV0xNNlA="}}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"contents":[{"uri":"mail://ada@example.org","mimeType":"text/plain","text":"fine"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","requestState":"ada@example.org","inputRequests":{"ada":{"method":"elicitation/create","params":{"mode":"form","requestedSchema":{"properties":{"email":{"type":"string","default":"ada@example.org"}}}}}}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}"#,
    ] {
        let raw = Bytes::from(raw);
        let masked = masker().message(&raw).unwrap();
        assert_eq!(masked.bytes(), &raw);
        assert!(!masked.changed() && masked.findings().is_empty());
        assert_eq!(masked.bytes().as_ptr(), raw.as_ptr(), "untouched bytes are shared");
    }
}

#[test]
fn data_is_masked_wherever_it_leaves() {
    let secret = "ada@example.org";
    for raw in [
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no ada@example.org","data":{"who":["ada@example.org"]}}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"ada@example.org"}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"message":"ada@example.org"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"contents":[{"uri":"x","text":"ada@example.org"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"contents":[{"uri":"x","blob":"not base64: ada@example.org"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"ada@example.org","annotations":{"x":"ada@example.org"}}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"image","data":"ada@example.org"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","data":"ada@example.org"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":{"x":"ada@example.org"}}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"action":"accept","content":{"mail":"ada@example.org"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"messages":[{"role":"user","content":{"type":"text","text":"ada@example.org"}}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"completion":{"values":["ada@example.org"]}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"x","description":"ask ada@example.org"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"resources":[{"uri":"x","name":"ada@example.org"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"instructions":"ask ada@example.org"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"task":{"taskId":"1","statusMessage":"ada@example.org"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"_meta":{"com.example/who":"ada@example.org"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"never heard of":{"ada@example.org":1}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{"q":"ada@example.org","ada@example.org":1}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{"messages":[{"role":"user","content":{"type":"text","text":"ada@example.org"}}],"systemPrompt":"ada@example.org"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{"message":"ada@example.org","requestedSchema":{}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","inputResponses":{"a":{"action":"accept","content":{"q":"ada@example.org"}}}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"custom/thing","params":["ada@example.org"],"extra":"ada@example.org"}"#,
    ] {
        let masked = message(raw);
        assert!(!masked.contains(secret), "{masked}");
        assert!(masked.contains("@masked.invalid"), "{masked}");
    }
}

#[test]
fn findings_name_places_and_never_values() {
    let raw = tool_result(
        r#"[{"ssn":"078-05-1120"}]"#,
        r#"{"ada@example.org":{"a/b":{"password":"hunter22"}},"x":"ada@example.org, bob@example.org"}"#,
    );
    let masked = masker().message(&Bytes::from(raw)).unwrap();
    let found: Vec<_> = masked.findings().iter().map(|f| (f.class.as_str(), f.pointer)).collect();
    let found: Vec<_> = found.iter().map(|(class, pointer)| (*class, pointer.as_str())).collect();
    assert_eq!(
        found,
        [
            ("pii.ssn", "/result/content/0/text#/0/ssn"),
            ("pii.email", "/result/structuredContent/a***@masked.invalid"),
            ("secret.password", "/result/structuredContent/a***@masked.invalid/a~1b/password"),
            ("pii.email", "/result/structuredContent/x"),
            ("pii.email", "/result/structuredContent/x"),
        ]
    );
    let counts: Vec<_> = masked.counts().into_iter().collect();
    assert_eq!(
        counts,
        [("pii.email".into(), 3), ("pii.ssn".into(), 1), ("secret.password".into(), 1)]
    );
    let (_, findings) = masker().text("err: {\"ssn\":\"078051120\"} for ada@example.org");
    let pointers: Vec<_> = findings.iter().map(|f| f.pointer).collect();
    assert_eq!(pointers, ["text#/ssn", "text"]);
}

#[test]
fn rules_are_checked_and_kept() {
    let rules: Rules = toml::from_str(
        "off = [\"pii.email\"]\nkeep = [\"patient_ssn\"]\n[fields]\n\"phi.mrn\" = [\"patient_number\"]\n",
    )
    .unwrap();
    let masker = Masker::new(&rules).unwrap();
    let raw = br#"{"email":"a@b.example","t":"email: a@b.example","patient_ssn":"078051120","note":"s 078-05-1120","patientNumber":"q-77"}"#;
    let (out, _) = masker.json(raw).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{"email":"a@b.example","t":"email: a@b.example","patient_ssn":"078051120","note":"s ***-**-1120","patientNumber":"[phi.mrn masked]"}"#
    );

    assert!(toml::from_str::<Rules>("of = []").is_err());
    let wrong = Rules { off: vec!["pii.emial".to_owned()], ..Rules::default() };
    let error = Masker::new(&wrong).unwrap_err().to_string();
    assert!(error.contains("pii.emial") && error.contains("pii.email, pii.iban"), "{error}");
    let wrong = Rules { keep: vec!["--".to_owned()], ..Rules::default() };
    assert!(Masker::new(&wrong).is_err());
}

#[test]
fn what_cannot_be_masked_is_an_error() {
    let masker = masker();
    for raw in ["", "{", "{\"a\":\"\\ud800\"}", "[1]]"] {
        assert_eq!(masker.json(raw.as_bytes()), Err(MaskError::Malformed), "{raw}");
    }
    assert_eq!(masker.json(b"\"\xff\""), Err(MaskError::Malformed));
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(masker.json(deep.as_bytes()), Err(MaskError::TooDeep));

    let mut nested = r#"{"ssn":"078051120"}"#.to_owned();
    for level in 1..=6 {
        nested = serde_json::json!({ "a": nested }).to_string();
        let masked = masker.json(nested.as_bytes());
        if level <= 4 {
            assert!(!String::from_utf8(masked.unwrap().0).unwrap().contains("0780"));
        } else {
            assert_eq!(masked, Err(MaskError::TooDeep));
        }
    }
    let (text, findings) = masker.text(&nested);
    assert!(text.starts_with("[text withheld") && findings.is_empty());
}

/// Texts built so that a careless scanner reads them many times over. Nothing is timed: a
/// quadratic scan of these would not end while anyone waits.
#[test]
fn hostile_texts_are_read_a_bounded_number_of_times() {
    let masker = masker();
    for part in [
        "{\"",
        "[{\"a\":",
        "[[\"",
        "{\"a\":1,",
        "email:",
        "ssn ",
        "1 ",
        "4111 ",
        "a@",
        "@a.",
        "-----BEGIN PRIVATE KEY-----\n",
        "password=\"",
        "\\\"",
        "{\"a\":[",
        "\"",
        "GB82 ",
        "ghp_",
        "name: A ",
        "1-1-",
    ] {
        let text = part.repeat(100_000 / part.len());
        let once = masker.text(&text).0.into_owned();
        let raw = serde_json::json!({ "text": text }).to_string();
        if let Ok((json, _)) = masker.json(raw.as_bytes()) {
            assert_eq!(json, serde_json::json!({ "text": once }).to_string().as_bytes(), "{part}");
        }
    }
}

fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[ -~]{0,8}",
        "\\PC{0,4}",
        proptest::sample::select(vec![
            "ada@example.org",
            "078-05-1120",
            "078051120",
            "ssn ",
            "ssn: ",
            "password=",
            "name",
            "4111 1111 1111 1111",
            "4111111111111111",
            "GB82WEST12345698765432",
            "first_name: ",
            "Ada King",
            "{\"ssn\":\"",
            "\"}",
            "[{",
            "\n",
            "-",
            " ",
            "@",
            ".",
            "\\u0040",
            "\\\"",
            "[pii.name masked]",
            "a***@masked.invalid",
            "dob: 1932-06-03",
            "phone: (555) 010-9999",
        ])
        .prop_map(str::to_owned),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let keys = proptest::sample::select(vec![
        "ssn",
        "email",
        "name",
        "full_name",
        "card",
        "order_id",
        "note",
        "text",
        "password",
        "columns",
        "rows",
        "value",
        "key",
        "phone",
        "dob",
        "mrn",
        "a@b.example",
        "type",
    ]);
    let leaf = prop_oneof![
        any_text().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::from(4111111111111111u64)),
        Just(Value::from(true)),
        Just(Value::Null),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((keys.clone(), inner.clone()), 0..4).prop_map(|members| {
                Value::Object(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
            inner.prop_map(|value| Value::from(value.to_string())),
        ]
    })
}

/// Where two values differ, they are strings, numbers or keys: the shape never changes.
fn same_shape(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => a.len() == b.len(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_shape(a, b))
        }
        (Value::String(_), Value::String(_)) | (Value::Number(_), Value::Number(_)) => true,
        (a, b) => a == b,
    }
}

proptest! {
    // The seed is fixed so that a rare find never fails somebody else's change; look for more with
    // another seed and PROPTEST_CASES.
    #![proptest_config(ProptestConfig {
        cases: 400,
        rng_seed: proptest::test_runner::RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn masking_twice_is_masking_once(value in any_json()) {
        let masker = masker();
        if let Ok((once, findings)) = masker.json(value.to_string().as_bytes()) {
            let masked: serde_json::Value = serde_json::from_slice(&once).unwrap();
            prop_assert!(same_shape(&value, &masked));
            prop_assert_eq!(findings.is_empty(), once == value.to_string().as_bytes());
            let (twice, findings) = masker.json(&once).unwrap();
            prop_assert_eq!(String::from_utf8(twice).unwrap(), String::from_utf8(once).unwrap());
            prop_assert!(findings.is_empty());
        }
    }

    #[test]
    fn masking_a_text_twice_is_masking_it_once(text in any_text()) {
        let masker = masker();
        let once = masker.text(&text).0.into_owned();
        prop_assert_eq!(masker.text(&once).0.into_owned(), once);
    }

    #[test]
    fn known_values_never_get_through(
        value in proptest::sample::select(vec![
            "ada.lovelace@example.org", "078-05-1120", "4111 1111 1111 1111",
            "GB82WEST12345698765432", "378282246310005",
        ]),
        before in "([ ,;:=(\\[]|\\PC{0,6} )?", after in "[ ,;)\\]]?",
        key in proptest::sample::select(vec!["note", "msg", "ssn", "email", "q"]), levels in 0usize..4,
    ) {
        let mut json = serde_json::json!({ key: format!("{before}{value}{after}") }).to_string();
        for _ in 0..levels {
            json = serde_json::json!([{ "text": json }]).to_string();
        }
        let raw = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"structuredContent":{json}}}}}"#);
        prop_assert!(!message(&raw).contains(value));
    }
}
