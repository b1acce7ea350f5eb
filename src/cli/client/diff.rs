//! What an edit of a client's file changes, line by line.
//!
//! Only the changed lines are shown, not those around them: they are somebody else's entries, and
//! people keep secrets there.

use crate::cli::error::CliError;
use crate::cli::text;
use crate::cli::ui::{BAD, GOOD, Ui, styled};

/// The lines that go (`-`) and come (`+`), under a line that says where.
pub(super) fn lines(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) =
        (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let same =
        |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| pairs.take_while(|(a, b)| a == b).count();
    let head = same(&mut old.iter().zip(&new));
    let rest = old.len().min(new.len()) - head;
    let tail = same(&mut old.iter().rev().zip(new.iter().rev())).min(rest);
    let changed = |sign: char, lines: &[&str]| -> Vec<String> {
        let lines = lines.get(head..lines.len() - tail).unwrap_or_default();
        lines.iter().map(|line| format!("{sign}{}", line.trim_end_matches(['\n', '\r']))).collect()
    };
    let mut out = vec![format!("@@ line {} @@", head + 1)];
    out.extend(changed('-', &old));
    out.extend(changed('+', &new));
    out
}

pub(super) fn print(ui: &Ui, diff: &[String]) -> Result<(), CliError> {
    for line in diff {
        let shown = text::visible(&line.replace('\t', "    "));
        ui.print(&match line.chars().next() {
            Some('-') => styled(BAD, &shown),
            Some('+') => styled(GOOD, &shown),
            _ => shown,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_shown() {
        assert_eq!(lines("a\nb\nc\n", "a\nb\nx\nc\n"), ["@@ line 3 @@", "+x"]);
        assert_eq!(lines("a\nb\nc\n", "a\nc\n"), ["@@ line 2 @@", "-b"]);
        assert_eq!(lines("secret\na\n", "secret\na,\nb\n"), ["@@ line 2 @@", "-a", "+a,", "+b"]);
        assert_eq!(lines("", "a\n"), ["@@ line 1 @@", "+a"]);
        assert_eq!(lines("a\na\n", "a\na\na\n"), ["@@ line 3 @@", "+a"]);
        assert_eq!(lines("a", ""), ["@@ line 1 @@", "-a"]);
    }
}
