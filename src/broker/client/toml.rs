//! Entries in TOML files: one table `[TABLE.NAME]` each, at the file's end.
//!
//! Pure edits by spans. `toml` parses and says where things stand; the text around is never
//! written anew (a re-rendering would turn CRLF into LF). An addition is a blank line and a table;
//! a removal takes both. A file that we make begins without the blank line, which tells it from
//! one that was empty.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{EditError, EntryName, Existing, Launch};
use crate::mcp::json::splice;

type Member<'a, 'i> = (&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>);

/// The entries of a file, in the order of their names.
pub(super) fn entries(text: &str, table: &str) -> Result<Vec<Existing>, EditError> {
    let root = parse(text)?;
    let Some(servers) = servers(text, root.get_ref(), table)? else { return Ok(Vec::new()) };
    let existing = |(name, value): Member<'_, '_>| Existing {
        name: name.get_ref().to_string(),
        launch: launch(value.get_ref()),
    };
    Ok(servers.iter().map(existing).collect())
}

/// Adds an entry that is not there.
pub(super) fn insert(
    text: Option<&str>,
    table: &str,
    name: &EntryName,
    launch: &Launch,
) -> Result<String, EditError> {
    let Some(text) = text else { return Ok(block(table, name, launch, "\n")) };
    let root = parse(text)?;
    let newline = newline(text);
    let added = format!("{newline}{}", block(table, name, launch, newline));
    let new = if text.is_empty() || text.ends_with('\n') {
        format!("{text}{added}")
    } else {
        format!("{text}{newline}{}", added.strip_suffix(newline).unwrap_or(&added))
    };
    // `mcp_servers = { … }` is closed: TOML forbids to add a table to it.
    if DeTable::parse(&new).is_err() {
        let at = root.get_ref().get_key_value(table).map_or(0, |(key, _)| key.span().start);
        let what = format!("{table} is written as one value; write it as [{table}.NAME] tables");
        return Err(EditError::at(text, at, what));
    }
    Ok(new)
}

/// Lets an entry of ours start us otherwise; what else it says stays.
pub(super) fn update(
    text: &str,
    table: &str,
    name: &EntryName,
    launch: &Launch,
) -> Result<String, EditError> {
    let root = parse(text)?;
    let (key, entry) = member(text, root.get_ref(), table, name.as_str())?;
    let spans = ["command", "args"].map(|key| entry.get(key).map(Spanned::span));
    let [Some(command), Some(arguments)] = spans else {
        return Err(EditError::at(text, key, "has no command and args"));
    };
    let mut edits =
        vec![(command, quoted(&launch.program)), (arguments, array(&launch.arguments()))];
    edits.sort_by_key(|(range, _)| range.start);
    apply(text, &edits)
}

/// Puts our entry in the place of another.
pub(super) fn overwrite(
    text: &str,
    table: &str,
    name: &EntryName,
    launch: &Launch,
) -> Result<String, EditError> {
    let rest = take(text, table, name.as_str())?;
    insert(rest.as_deref(), table, name, launch)
}

/// Takes an entry out; `None` when the file was ours and nothing is left of it.
pub(super) fn take(text: &str, table: &str, name: &str) -> Result<Option<String>, EditError> {
    let root = parse(text)?;
    let root_table = root.get_ref();
    let (key, _) = member(text, root_table, table, name)?;
    let servers = servers(text, root_table, table)?;
    let Some((key_span, value)) = servers.and_then(|servers| servers.get_key_value(name)) else {
        return Err(EditError::at(text, key, "has no such entry"));
    };
    let mut blocks = Vec::new();
    let by_hand = |how: &str| {
        EditError::at(text, key, format!("{name} is written with {how}; take it out by hand"))
    };
    if is_header(text, key_span.span().start) {
        if !tables(text, key_span.span(), value, &mut blocks) {
            return Err(by_hand("arrays of tables"));
        }
    } else if value_follows(text, &key_span.span(), &value.span()) {
        blocks.push(lines(text, key_span.span().start, value.span().end));
    } else {
        return Err(by_hand("dotted keys"));
    }
    blocks.sort_by_key(|block| block.start);
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    for block in blocks {
        let start = without_blank_line(text, block.start);
        let last = edits.last().map_or(0, |(range, _)| range.end);
        edits.push((start.max(last)..block.end, String::new()));
    }
    let at_start =
        edits.first().is_some_and(|(range, _)| range.start == 0) && !text.starts_with(['\n', '\r']);
    let rest = apply(text, &edits)?;
    // Without a line break at its end before, without one after.
    let rest = match text.ends_with('\n') {
        true => rest.as_str(),
        false => {
            rest.strip_suffix('\n').map_or(rest.as_str(), |r| r.strip_suffix('\r').unwrap_or(r))
        }
    };
    Ok(match (at_start, rest) {
        (true, "") => None,
        (true, rest) => Some(without_first_blank_line(rest).to_owned()),
        (false, rest) => Some(rest.to_owned()),
    })
}

fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, EditError> {
    DeTable::parse(text).map_err(|error| {
        EditError::at(text, error.span().map_or(0, |span| span.start), error.message())
    })
}

fn servers<'a, 'i>(
    text: &str,
    root: &'a DeTable<'i>,
    table: &str,
) -> Result<Option<&'a DeTable<'i>>, EditError> {
    match root.get_key_value(table).map(|(key, value)| (key, value.get_ref())) {
        None => Ok(None),
        Some((_, DeValue::Table(servers))) => Ok(Some(servers)),
        Some((key, _)) => {
            Err(EditError::at(text, key.span().start, format!("{table} must be a table")))
        }
    }
}

/// Where an entry's name stands, and what it holds.
fn member<'a, 'i>(
    text: &str,
    root: &'a DeTable<'i>,
    table: &str,
    name: &str,
) -> Result<(usize, &'a DeTable<'i>), EditError> {
    let found = servers(text, root, table)?.and_then(|servers| servers.get_key_value(name));
    match found.map(|(key, value)| (key.span().start, value.get_ref())) {
        Some((at, DeValue::Table(entry))) => Ok((at, entry)),
        Some((at, _)) => Err(EditError::at(text, at, format!("{name} must be a table"))),
        None => Err(EditError::at(text, 0, format!("there is no {table}.{name}"))),
    }
}

fn launch(entry: &DeValue<'_>) -> Option<Launch> {
    let DeValue::Table(entry) = entry else { return None };
    let command = entry.get("command")?.get_ref().as_str()?;
    let arguments = entry.get("args")?.get_ref().as_array()?.iter();
    let arguments: Option<Vec<&str>> = arguments.map(|value| value.get_ref().as_str()).collect();
    Launch::read(command, &arguments?)
}

/// The lines of a table with a header, and of the tables with headers in it. False where one of
/// them is an array of tables, of which only the first header is told.
fn tables(
    text: &str,
    key: Range<usize>,
    value: &Spanned<DeValue<'_>>,
    out: &mut Vec<Range<usize>>,
) -> bool {
    let DeValue::Table(table) = value.get_ref() else { return false };
    let mut block = lines(text, key.start, key.end);
    for (key, value) in table {
        if !is_header(text, key.span().start) {
            block.end = block.end.max(lines(text, key.span().start, end(value)).end);
        } else if !tables(text, key.span(), value, out) {
            return false;
        }
    }
    out.push(block);
    true
}

/// Where a value ends; for one written with dotted keys, where the last of its parts does.
fn end(value: &Spanned<DeValue<'_>>) -> usize {
    let inner = match value.get_ref() {
        DeValue::Table(table) => table.iter().map(|(_, value)| end(value)).max(),
        _ => None,
    };
    inner.unwrap_or(0).max(value.span().end)
}

/// Whether a key stands in a `[header]`.
fn is_header(text: &str, key: usize) -> bool {
    let line = text.get(lines(text, key, key)).unwrap_or_default();
    line.trim_start().starts_with('[')
}

/// Whether `key = value` is all that makes the value.
fn value_follows(text: &str, key: &Range<usize>, value: &Range<usize>) -> bool {
    text.get(key.end..value.start).is_some_and(|between| between.trim() == "=")
        && text
            .get(lines(text, key.start, key.start).start..key.start)
            .is_some_and(|before| before.trim().is_empty() || before.trim_end().ends_with('.'))
}

/// The whole lines from one byte to another.
fn lines(text: &str, from: usize, to: usize) -> Range<usize> {
    let start = text.get(..from).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let end =
        text.get(to..).and_then(|after| after.find('\n')).map_or(text.len(), |at| to + at + 1);
    start..end
}

/// The start of the blank line before a line, if there is one, or else of the line itself.
fn without_blank_line(text: &str, start: usize) -> usize {
    let before = text.get(..start).unwrap_or_default();
    let shorter = without_newline(before);
    let blank = shorter.len() < before.len() && (shorter.is_empty() || shorter.ends_with('\n'));
    if blank { shorter.len() } else { start }
}

fn without_newline(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |rest| rest.strip_suffix('\r').unwrap_or(rest))
}

fn without_first_blank_line(text: &str) -> &str {
    text.strip_prefix("\r\n").or_else(|| text.strip_prefix('\n')).unwrap_or(text)
}

fn newline(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text.get(..at).is_some_and(|before| before.ends_with('\r')) => "\r\n",
        _ => "\n",
    }
}

fn apply(text: &str, edits: &[(Range<usize>, String)]) -> Result<String, EditError> {
    let broken = |at| EditError::at(text, at, "cannot be edited here");
    let bytes = splice(text.as_bytes(), edits).map_err(|error| broken(error.at))?;
    String::from_utf8(bytes).map_err(|_| broken(0))
}

fn block(table: &str, name: &EntryName, launch: &Launch, newline: &str) -> String {
    let program = quoted(&launch.program);
    let arguments = array(&launch.arguments());
    // An entry's name is made of what a bare key may hold.
    let name = name.as_str();
    format!("[{table}.{name}]{newline}command = {program}{newline}args = {arguments}{newline}")
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn array(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}
