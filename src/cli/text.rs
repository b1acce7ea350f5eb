//! Foreign text made fit for a terminal: what an MCP server, a tool or a log wrote must not move
//! the cursor, reorder letters, or hide some.
//!
//! Pure. [`clean`] takes the dangerous characters out, for text that is only read; [`visible`]
//! shows them as escapes, for text that somebody decides on.

use std::fmt::Write as _;

/// The text without control, direction and invisible characters; line breaks and tabs become
/// blanks.
pub fn clean(text: &str) -> String {
    text.chars()
        .filter_map(|c| match c {
            '\n' | '\t' | '\r' => Some(' '),
            c if is_deceptive(c) => None,
            c => Some(c),
        })
        .collect()
}

/// [`clean`], but line breaks stay.
pub fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// The text with every control, direction and invisible character written out (`\u{202e}`).
/// Line feeds stay.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && is_deceptive(c) {
            // Writing to a String cannot fail.
            let _infallible = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// [`visible`] for a value that stands in a line of its own: a line feed in it is written out as
/// well, since what follows it would look like a line of ours.
pub fn visible_line(text: &str) -> String {
    visible(text).replace('\n', "\\u{a}")
}

/// The same JSON with every such character as a `\u` escape: equal to a parser, harmless on a
/// terminal.
pub fn escape_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii_graphic() || matches!(c, ' ' | '\n') || !is_deceptive(c) {
            out.push(c);
        } else {
            let mut units = [0u16; 2];
            for unit in c.encode_utf16(&mut units) {
                let _infallible = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// JSON text with line breaks and two blanks of indentation per level. Only blanks between tokens
/// change: numbers and strings stay as they were written.
pub fn indent_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let mut chars = json.chars().peekable();
    let break_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                let mut escaped = false;
                for c in chars.by_ref() {
                    out.push(c);
                    if !escaped && c == '"' {
                        break;
                    }
                    escaped = !escaped && c == '\\';
                }
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                if let Some(end) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// Cuts to `width` characters, marking the cut.
pub fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// A span of time in its largest whole unit; never negative.
pub fn span(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// Whether a character does something to a reader other than being read.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str = "ok\u{1b}[2J\u{9b}31m\u{202e}lla\u{200b}\u{e0041}\u{7f}\rx";

    #[test]
    fn nothing_foreign_reaches_the_terminal() {
        assert_eq!(clean(NASTY), "ok[2J31mlla x");
        assert_eq!(clean_lines("a\u{1b}\nb\r\nc"), "a\nb\nc");
    }

    #[test]
    fn who_decides_sees_everything() {
        assert_eq!(
            visible(NASTY),
            "ok\\u{1b}[2J\\u{9b}31m\\u{202e}lla\\u{200b}\\u{e0041}\\u{7f}\\u{d}x"
        );
    }

    #[test]
    fn a_value_forges_no_line() {
        assert_eq!(visible_line("transfer\nrule       none"), "transfer\\u{a}rule       none");
    }

    #[test]
    fn escaped_json_is_the_same_json() {
        let json = serde_json::to_string(NASTY).unwrap();
        let escaped = escape_json(&json);
        assert!(escaped.is_ascii() && !escaped.contains('\u{7f}'));
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), NASTY);
    }

    #[test]
    fn indentation_changes_no_token() {
        let json = r#"{"n": 123456789012345678901234567890,"s":"a\"b, {c}:\\","e":{ },"a":[1,[]]}"#;
        let expected = "{\n  \"n\": 123456789012345678901234567890,\n  \"s\": \"a\\\"b, {c}:\\\\\",\n  \"e\": {},\n  \"a\": [\n    1,\n    []\n  ]\n}";
        assert_eq!(indent_json(json), expected);
    }
}
