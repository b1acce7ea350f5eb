//! Added and removed again, every text is what it was.

use proptest::prelude::*;

use super::*;

const JSON: Format = Format::Json(json::Shape { container: "mcpServers", first: None });
const TYPED: Format =
    Format::Json(json::Shape { container: "servers", first: Some(("type", "stdio")) });
const TOML: Format = Format::Toml("mcp_servers");

fn launch(connection: &str) -> Launch {
    Launch {
        program: "/opt/my \"tools\"/mcpx".to_owned(),
        connection: connection.parse().unwrap(),
        home: None,
        server: None,
    }
}

fn name(text: &str) -> EntryName {
    text.parse().unwrap()
}

fn add(format: Format, text: Option<&str>, connection: &str) -> String {
    match format.add(text, &name(connection), &launch(connection), false).unwrap() {
        Added::New(text) => text,
        other => panic!("{other:?}"),
    }
}

fn remove(format: Format, text: &str, connection: &str) -> Option<String> {
    match format.remove(text, &connection.parse().unwrap(), None, false).unwrap() {
        Removed::Text(text, _) => Some(text),
        Removed::File { untouched, .. } => {
            assert!(untouched, "{text}");
            None
        }
        Removed::Nothing => panic!("nothing to remove in {text}"),
    }
}

/// One entry, and two taken out in either order.
fn survives(format: Format, text: Option<&str>) {
    let before = text.map_or(0, |text| format.entries(text).unwrap().len());
    let one = add(format, text, "crm");
    let found = format.entries(&one).unwrap();
    assert_eq!(found.len(), before + 1, "{one}");
    let ours = found.iter().find(|entry| entry.name == "crm").unwrap();
    assert_eq!(ours.launch, Some(launch("crm")), "{one}");
    let again = format.add(Some(&one), &name("crm"), &launch("crm"), false).unwrap();
    assert_eq!(again, Added::Already, "{one}");
    assert_eq!(remove(format, &one, "crm").as_deref(), text, "through {one}");
    let two = add(format, Some(&one), "hr");
    for (first, second) in [("crm", "hr"), ("hr", "crm")] {
        let left = remove(format, &two, first).unwrap();
        assert_eq!(remove(format, &left, second).as_deref(), text, "{first} first, from {two}");
    }
}

#[test]
fn json_of_every_layout_survives() {
    for text in [
        "",
        "\n",
        "// only this",
        "// only this\n",
        "/* and */ // that\r\n",
        "{}",
        "{}\n",
        "{ }",
        "{\n}\n",
        "\u{feff}{}",
        "\u{feff}",
        "{\"mcpServers\":{}}",
        "{\"mcpServers\": { }}",
        "{\n  \"mcpServers\": {}\n}\n",
        "{\n  \"mcpServers\": {}\n}",
        "{\n  \"mcpServers\": {\n  }\n}\n",
        "{\n  \"mcpServers\": {\n    // none yet\n  }\n}\n",
        "{\n  \"mcpServers\": { /* none */ }\n}\n",
        "{\n\t\"a\": 1, // one\n\t\"mcpServers\": {\n\t\t\"x\": {\"url\": \"y\"}, // x\n\t},\n}\n",
        "{\r\n    \"a\": 1 // one\r\n}\r\n",
        "{\"a\":1,\"mcpServers\":{\"x\":{\"command\":\"mcpx\",\"args\":[]}},\"b\":[1,2,]}",
        "{\"a\":1 /* one */ , /* two */ }",
        "// head\n{\n  \"theme\": \"One\" // no comma\n\n  // tail\n}\n// foot\n",
        "{\"\\u006dcpServers\": {}}",
    ] {
        survives(JSON, Some(text));
        survives(TYPED, Some(text));
    }
    survives(JSON, None);
    survives(TYPED, None);
}

#[test]
fn toml_of_every_layout_survives() {
    for text in [
        "",
        "\n",
        "# only this",
        "model = \"o\"\n",
        "model = \"o\"",
        "model = \"o\"\r\n\r\n[a]\r\nb = 1\r\n",
        "[mcp_servers]\n",
        "[mcp_servers.x]\ncommand = \"y\" # z\n\n\n",
        "mcp_servers.x.command = \"y\"\n[[a]]\n[[a]]\nb = \"\"\"\n[c]\n\"\"\"\n",
        "[mcp_servers.x]\nargs = [\n  \"a\", # b\n]\n[mcp_servers.x.env]\nA = 'b'\n",
    ] {
        survives(TOML, Some(text));
    }
    survives(TOML, None);
}

#[test]
fn what_is_written() {
    assert_eq!(
        add(TYPED, None, "crm"),
        "{\n  \"servers\": {\n    \"crm\": {\n      \"type\": \"stdio\",\n      \"command\": \
         \"/opt/my \\\"tools\\\"/mcpx\",\n      \"args\": [\"connect\", \"crm\", \"--stdio\"]\n    \
         }\n  }\n}\n"
    );
    assert_eq!(
        add(JSON, Some("{\n\t\"a\": 1 // one\n}\n"), "crm"),
        "{\n\t\"a\": 1, // one\n\t\"mcpServers\": {\n\t\t\"crm\": {\n\t\t\t\"command\": \
         \"/opt/my \\\"tools\\\"/mcpx\",\n\t\t\t\"args\": [\"connect\", \"crm\", \"--stdio\"]\n\t\t\
         }\n\t}\n}\n"
    );
    let filled = add(JSON, Some("{\r\n  \"mcpServers\": {}\r\n}"), "crm");
    assert!(filled.starts_with("{\r\n  \"mcpServers\": {\r\n\r\n    \"crm\": {\r\n"), "{filled}");
    assert!(filled.ends_with("    }\r\n  }\r\n}"), "{filled}");
    assert_eq!(
        add(TOML, Some("a = 1\n"), "crm"),
        "a = 1\n\n[mcp_servers.crm]\ncommand = '/opt/my \"tools\"/mcpx'\nargs = [\"connect\", \
         \"crm\", \"--stdio\"]\n"
    );
}

#[test]
fn ours_is_changed_in_place_and_keeps_what_the_user_added() {
    let mut moved = launch("crm");
    moved.home = Some("/h".into());
    for (format, text) in [
        (
            JSON,
            "{\"mcpServers\": {\"crm\": {\"args\": [\"connect\", \"crm\", \"--stdio\"], // x\n \
             \"command\": \"C:\\\\bin\\\\mcpx.exe\", \"env\": {\"A\": 1}}}}",
        ),
        (
            TOML,
            "[mcp_servers.crm] # x\nargs = [\"connect\", \"crm\",\n \"--stdio\"]\ncommand = \
             \"mcpx\"\nenabled = false\n",
        ),
    ] {
        let Added::Changed(changed) = format.add(Some(text), &name("crm"), &moved, false).unwrap()
        else {
            panic!("{text}")
        };
        assert_eq!(format.entries(&changed).unwrap()[0].launch, Some(moved.clone()));
        for kept in ["x\n", if format == JSON { "\"A\": 1" } else { "enabled = false" }] {
            assert!(changed.contains(kept), "{changed}");
        }
    }
}

#[test]
fn somebody_elses_entry_stays_without_force() {
    for (format, text) in [
        (JSON, "{\"mcpServers\": {\"crm\": {\"command\": \"npx\", \"args\": [\"x\"]}, \"b\": {}}}"),
        (JSON, "{\"mcpServers\": {\"crm\": null}}"),
        (JSON, "{\"mcpServers\": {\"crm\": {\"url\": \"http://x\"}}}"),
        (TOML, "[mcp_servers.crm]\nurl = \"x\"\n[mcp_servers.crm.env]\nA = \"b\"\n[z]\n"),
        (TOML, "[mcp_servers]\ncrm = { command = \"x\" } # y\nz = {}\n"),
    ] {
        let crm = name("crm");
        let refused = format.add(Some(text), &crm, &launch("crm"), false);
        assert_eq!(refused, Err(EditError::NotOurs { name: crm.clone() }), "{text}");
        let refused = format.remove(text, &"crm".parse().unwrap(), None, false);
        assert_eq!(refused, Err(EditError::NotOurs { name: crm.clone() }), "{text}");
        let forced = format.add(Some(text), &crm, &launch("crm"), true).unwrap();
        let Added::Changed(forced) = forced else { panic!("{forced:?}") };
        let entries = format.entries(&forced).unwrap();
        assert_eq!(entries.len(), format.entries(text).unwrap().len(), "{forced}");
        assert!(entries.iter().any(|entry| entry.launch == Some(launch("crm"))), "{forced}");
        let gone = format.remove(text, &"crm".parse().unwrap(), None, true).unwrap();
        assert!(!format!("{gone:?}").contains("url = "), "{gone:?}");
    }
}

#[test]
fn removal_goes_by_connection_and_takes_no_other() {
    let mut text = add(JSON, None, "hr");
    for entry in ["one", "two"] {
        text = match JSON.add(Some(&text), &name(entry), &launch("crm"), false).unwrap() {
            Added::New(text) => text,
            other => panic!("{other:?}"),
        };
    }
    let crm = "crm".parse().unwrap();
    let one = JSON.remove(&text, &crm, Some(&name("one")), false).unwrap();
    let Removed::Text(left, names) = one else { panic!("{one:?}") };
    assert_eq!(
        (names.as_slice(), JSON.entries(&left).unwrap().len()),
        (&["one".to_owned()][..], 2)
    );
    let both = JSON.remove(&text, &crm, None, false).unwrap();
    assert_eq!(both, Removed::Text(add(JSON, None, "hr"), vec!["one".into(), "two".into()]));
    let wrong = JSON.remove(&text, &crm, Some(&name("hr")), true);
    assert!(matches!(wrong, Ok(Removed::Text(..))), "by name, with force");
    let none = JSON.remove(&text, &"db".parse().unwrap(), None, true).unwrap();
    assert_eq!(none, Removed::Nothing);
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    for (format, text, place) in [
        (JSON, "{\n  \"a\": 1\n  \"b\": 2\n}", "2:9: "),
        (JSON, "{'a': 1}", "1:2: "),
        (JSON, "[]", "1:1: the file must hold an object"),
        (JSON, "{\n \"é\": 1, \"mcpServers\": []}", "2:24: \"mcpServers\" must be an object"),
        (JSON, "{\"mcpServers\": {}, \"mcpServers\": {}}", "1:20: \"mcpServers\" is there twice"),
        (JSON, "{\"mcpServers\": {}} x", "1:20: "),
        (JSON, "{\"mcpServers\": {", "1:16: "),
        (TOML, "a = 1\nb == 2\n", "2:4: "),
        (TOML, "mcp_servers = 1\n", "1:1: mcp_servers must be a table"),
        (
            TOML,
            "[mcp_servers.crm]\nurl = \"x\"\n[[mcp_servers.crm.y]]\n[[mcp_servers.crm.y]]\n",
            "1:14: crm is written with arrays",
        ),
        (TOML, "a = 1\nmcp_servers = {}\n", "2:1: mcp_servers is written as one value"),
    ] {
        let error = format.add(Some(text), &name("crm"), &launch("crm"), true).unwrap_err();
        assert!(error.to_string().starts_with(place), "{text}: {error}");
    }
    let twice = "{\"mcpServers\": {\"crm\": {\"command\": \"x\"}, \"crm\": {}}}";
    assert!(JSON.add(Some(twice), &name("crm"), &launch("crm"), true).is_err());
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(JSON.entries(&deep).is_err());
}

#[test]
fn ours_is_told_from_others() {
    let read = |command: &str, line: &str| {
        Launch::read(command, &line.split(' ').collect::<Vec<_>>()).map(|launch| launch.home)
    };
    assert_eq!(read("mcpx", "connect crm --stdio"), Some(None));
    assert_eq!(read("/a/mcpx", "--home /h connect crm --stdio"), Some(Some("/h".into())));
    assert_eq!(read("C:\\a\\mcpx.exe", "connect crm --home=h --stdio"), Some(Some("h".into())));
    assert_eq!(read("mcpx", "connect crm --stdio --reason why"), Some(None));
    for (command, line) in [
        ("mcpxx", "connect crm --stdio"),
        ("mcpx", "connect crm"),
        ("mcpx", "exec crm --stdio"),
        ("mcpx", "connect crm hr --stdio"),
        ("mcpx", "connect Not/Mine --stdio"),
        ("mcpx", "connect crm --stdio --home"),
        ("npx", "mcpx connect crm --stdio"),
    ] {
        assert_eq!(read(command, line), None, "{command} {line}");
    }
    for bad in ["", "a b", "ä", "a.b", &"a".repeat(65)] {
        assert!(bad.parse::<EntryName>().is_err(), "{bad}");
    }
}

/// Blanks and comments as they stand between tokens.
fn gap() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => Just(""),
        4 => Just(" "),
        3 => Just("\n"),
        2 => Just("\n  "),
        1 => Just("\r\n"),
        1 => Just("\t"),
        1 => Just("// {\"c\": ,}\n"),
        1 => Just("// é\r\n\t"),
        1 => Just("/* } */"),
        1 => Just("/* \"a\n,\" */"),
    ];
    proptest::collection::vec(piece, 0..3).prop_map(|pieces| pieces.concat())
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null"),
        Just("-1.5e3"),
        Just("123456789012345678901234567890"),
        Just("\"\""),
        Just("\"a\\\"} // \\u00e9\""),
        Just("true"),
    ]
    .prop_map(str::to_owned)
}

/// Members or elements between brackets, with gaps around and perhaps a comma at the end.
fn closed(
    open: char,
    close: char,
    items: impl Strategy<Value = Vec<String>>,
) -> impl Strategy<Value = String> {
    (items, gap(), gap(), any::<bool>()).prop_map(move |(items, head, tail, comma)| {
        let comma = if comma && !items.is_empty() { "," } else { "" };
        format!("{open}{head}{}{comma}{tail}{close}", items.join(","))
    })
}

/// A member; its key is drawn with a number so that no two are alike.
fn member(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (gap(), any::<u64>(), gap(), gap(), value, gap())
        .prop_map(|(a, key, b, c, value, d)| format!("{a}\"k{key}\"{b}:{c}{value}{d}"))
}

fn value() -> impl Strategy<Value = String> {
    scalar().prop_recursive(3, 24, 4, |inner| {
        let element = (gap(), inner.clone(), gap()).prop_map(|(a, v, b)| format!("{a}{v}{b}"));
        prop_oneof![
            closed('[', ']', proptest::collection::vec(element, 0..4)),
            closed('{', '}', proptest::collection::vec(member(inner), 0..4)),
        ]
    })
}

/// A whole file, with or without an object of servers somewhere in it.
fn document() -> impl Strategy<Value = String> {
    let members = || proptest::collection::vec(member(value()), 0..3);
    let servers = proptest::option::of((gap(), gap(), closed('{', '}', members()), gap()));
    let all = (members(), servers, members()).prop_map(|(mut before, servers, after)| {
        let servers = servers.map(|(a, b, object, c)| format!("{a}\"mcpServers\":{b}{object}{c}"));
        before.extend(servers);
        before.extend(after);
        before
    });
    (gap(), closed('{', '}', all), gap()).prop_map(|(a, object, b)| format!("{a}{object}{b}"))
}

fn toml_document() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just(""),
        Just("  "),
        Just("# [mcp_servers.crm]"),
        Just("v = [\n  1, # one\n]"),
        Just("v = \"\"\"\n[mcp_servers.crm]\n\n\"\"\""),
        Just("v = { a = 1 }"),
        Just("v.w.x = '''\n'''"),
    ];
    let table =
        (prop_oneof![Just("mcp_servers."), Just("")], proptest::collection::vec(line, 0..4));
    let tables = proptest::collection::vec(table, 0..4);
    (tables, any::<bool>(), any::<bool>()).prop_map(|(tables, crlf, end)| {
        let mut text = String::new();
        for (number, (prefix, lines)) in tables.into_iter().enumerate() {
            text.push_str(&format!("[{prefix}t{number}]\n"));
            let mut seen = false;
            // One value per table: a second `v` would be a duplicate.
            for line in lines {
                if !(line.starts_with('v') && std::mem::replace(&mut seen, true)) {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        if !end {
            text.pop();
        }
        if crlf { text.replace('\n', "\r\n") } else { text }
    })
}

proptest! {
    #[test]
    fn any_json_with_comments_survives(text in document()) {
        survives(JSON, Some(&text));
        survives(TYPED, Some(&text));
    }

    #[test]
    fn any_toml_survives(text in toml_document()) {
        survives(TOML, Some(&text));
    }

    /// Bytes that are nothing in particular: an error, never a panic.
    #[test]
    fn any_text_is_read_or_refused(text in "[\\PC\n\"{}\\[\\],:/*#=. a-z]{0,60}") {
        for format in [JSON, TOML] {
            if let Ok(Added::New(new)) = format.add(Some(&text), &name("crm"), &launch("crm"), false) {
                prop_assert_eq!(remove(format, &new, "crm"), Some(text.clone()));
            }
        }
    }
}
