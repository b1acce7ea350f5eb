//! Entries in JSON files with comments and trailing commas, as editors write them.
//!
//! Pure edits by spans. The rule that makes a removal the inverse of an addition, with nothing
//! remembered elsewhere: *an object that we make begins with one line break; one that was there
//! and empty, with a blank line* (or, where blanks stood in it, with none). So the text itself
//! says, when the last entry goes, whether the object (and the file) goes with it.

use std::ops::Range;

use jsonc_parser::ast::{Object, ObjectProp, Value};
use jsonc_parser::common::Ranged as _;
use jsonc_parser::tokens::{Token, TokenAndRange};
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions, parse_to_ast};

use super::{EditError, EntryName, Existing, Launch};
use crate::mcp::json::{escape, splice};

/// Where entries stand in a client's JSON, and what they must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The member of the root that holds the entries.
    pub container: &'static str,
    /// A member that every entry begins with.
    pub first: Option<(&'static str, &'static str)>,
}

type Edit = (Range<usize>, String);

/// The entries of a file, in its order.
pub(super) fn entries(text: &str, shape: Shape) -> Result<Vec<Existing>, EditError> {
    let doc = Doc::parse(text)?;
    let Some(root) = doc.root()? else { return Ok(Vec::new()) };
    let Some(servers) = doc.object(root, shape.container)? else { return Ok(Vec::new()) };
    let existing = |member: &ObjectProp<'_>| Existing {
        name: member.name.as_str().to_owned(),
        launch: launch(&member.value),
    };
    Ok(servers.properties.iter().map(existing).collect())
}

/// Adds an entry that is not there.
pub(super) fn insert(
    text: Option<&str>,
    shape: Shape,
    name: &EntryName,
    launch: &Launch,
) -> Result<String, EditError> {
    let entry = |style: &Style, indent: &str| entry_text(style, indent, shape, launch);
    let container = |style: &Style, indent: &str| {
        let inner = format!("{indent}{}", style.unit);
        let entry = entry(style, &inner);
        let nl = style.newline;
        format!("{{{nl}{inner}{}: {entry}{nl}{indent}}}", quoted(name.as_str()))
    };
    let whole = || {
        let style = Style::usual();
        let container = container(&style, &style.unit);
        format!("{{\n{}{}: {container}\n}}", style.unit, quoted(shape.container))
    };
    let Some(text) = text else { return Ok(whole() + "\n") };
    let doc = Doc::parse(text)?;
    let Some(root) = doc.root()? else {
        // Nothing but blanks and comments. Without a line break at the end, unlike a file that we
        // make, so that a removal can tell.
        return Ok(match doc.pieces.last() {
            Some(last) if is_line_comment(last) && last.range.end == doc.text.len() => {
                format!("{text}\n{}\n", whole())
            }
            _ => text.to_owned() + &whole(),
        });
    };
    let edits = match doc.object(root, shape.container)? {
        Some(servers) => {
            doc.unique(servers, name.as_str())?;
            doc.insertion(servers, name.as_str(), entry)
        }
        None => doc.insertion(root, shape.container, container),
    };
    doc.apply(edits)
}

/// Lets an entry of ours start us otherwise; what else it says stays.
pub(super) fn update(
    text: &str,
    shape: Shape,
    name: &EntryName,
    launch: &Launch,
) -> Result<String, EditError> {
    let doc = Doc::parse(text)?;
    let (_, servers) = doc.servers(shape, name.as_str())?;
    let entry = doc.unique(servers, name.as_str())?.and_then(|member| member.value.as_object());
    let Some(entry) = entry else { return Err(doc.error(servers.start(), "has no such entry")) };
    let mut edits = Vec::new();
    for (key, value) in [("command", quoted(&launch.program)), ("args", array(&launch.arguments()))]
    {
        match doc.unique(entry, key)? {
            Some(member) => edits.push((member.value.start()..member.value.end(), value)),
            None => return Err(doc.error(entry.start(), format!("has no {key:?}"))),
        }
    }
    edits.sort_by_key(|(range, _)| range.start);
    doc.apply(edits)
}

/// Puts our entry in the place of another.
pub(super) fn overwrite(
    text: &str,
    shape: Shape,
    name: &EntryName,
    launch: &Launch,
) -> Result<String, EditError> {
    let doc = Doc::parse(text)?;
    let (_, servers) = doc.servers(shape, name.as_str())?;
    let Some(member) = doc.unique(servers, name.as_str())? else {
        return Err(doc.error(servers.start(), "has no such entry"));
    };
    let entry = entry_text(&doc.style(), doc.line_indent(member.start()), shape, launch);
    doc.apply(vec![(member.value.start()..member.value.end(), entry)])
}

/// Takes an entry out; `None` when the file was ours and nothing is left of it.
pub(super) fn take(text: &str, shape: Shape, name: &str) -> Result<Option<String>, EditError> {
    let doc = Doc::parse(text)?;
    let (root, servers) = doc.servers(shape, name)?;
    let edits = if !doc.is_made(servers) {
        doc.removal(servers, name)?
    } else if doc.is_made(root) && doc.is_laid_out_as_a_file(root) {
        let before = doc.text.get(..root.start()).unwrap_or_default();
        return Ok(match (before, doc.text.get(root.end()..).unwrap_or_default()) {
            ("", "\n") => None,
            // The comment that had no line break at its end.
            (comments, "\n") if comments.ends_with('\n') => {
                Some(format!("{}{}", doc.mark, comments.get(..comments.len() - 1).unwrap_or("")))
            }
            (before, "") => Some(format!("{}{before}", doc.mark)),
            _ => Some(doc.apply(doc.removal(root, shape.container)?)?),
        });
    } else {
        doc.removal(root, shape.container)?
    };
    doc.apply(edits).map(Some)
}

/// A parsed file: values by their spans, and every token and comment in order.
struct Doc<'a> {
    /// The byte order mark, if there is one; spans do not count it.
    mark: &'a str,
    text: &'a str,
    value: Option<Value<'a>>,
    pieces: Vec<TokenAndRange<'a>>,
}

/// How a file is laid out.
struct Style {
    newline: &'static str,
    unit: String,
}

impl Style {
    fn usual() -> Self {
        Self { newline: "\n", unit: "  ".to_owned() }
    }
}

impl<'a> Doc<'a> {
    fn parse(whole: &'a str) -> Result<Self, EditError> {
        let text = whole.strip_prefix('\u{feff}').unwrap_or(whole);
        let mark = whole.get(..whole.len() - text.len()).unwrap_or_default();
        let collect =
            CollectOptions { comments: CommentCollectionStrategy::AsTokens, tokens: true };
        // Comments and trailing commas, and nothing else beyond JSON: what is looser is read by
        // few clients, and is a typing mistake more often than meant.
        let options = ParseOptions {
            allow_comments: true,
            allow_trailing_commas: true,
            allow_loose_object_property_names: false,
            allow_missing_commas: false,
            allow_single_quoted_strings: false,
            allow_hexadecimal_numbers: false,
            allow_unary_plus_numbers: false,
            allow_bare_decimal_point_numbers: false,
            allow_non_finite_numbers: false,
            allow_extended_string_escapes: false,
        };
        let parsed = parse_to_ast(text, &collect, &options)
            .map_err(|error| EditError::at(text, error.range().start, error.kind().to_string()))?;
        Ok(Self { mark, text, value: parsed.value, pieces: parsed.tokens.unwrap_or_default() })
    }

    fn error(&self, byte: usize, what: impl Into<String>) -> EditError {
        EditError::at(self.text, byte, what)
    }

    fn apply(&self, edits: Vec<Edit>) -> Result<String, EditError> {
        let broken = |at| self.error(at, "cannot be edited here");
        let bytes = splice(self.text.as_bytes(), &edits).map_err(|error| broken(error.at))?;
        let text = String::from_utf8(bytes).map_err(|_| broken(0))?;
        Ok(format!("{}{text}", self.mark))
    }

    /// The root; `None` in a file of blanks and comments.
    fn root(&self) -> Result<Option<&Object<'a>>, EditError> {
        match &self.value {
            None => Ok(None),
            Some(Value::Object(root)) => Ok(Some(root)),
            Some(other) => Err(self.error(other.start(), "the file must hold an object")),
        }
    }

    /// The one member of that name. Readers differ in which of two they take, so two are refused.
    fn unique<'d>(
        &self,
        object: &'d Object<'a>,
        name: &str,
    ) -> Result<Option<&'d ObjectProp<'a>>, EditError> {
        let mut named = object.properties.iter().filter(|member| member.name.as_str() == name);
        let first = named.next();
        match named.next() {
            Some(second) => Err(self.error(second.start(), format!("{name:?} is there twice"))),
            None => Ok(first),
        }
    }

    fn object<'d>(
        &self,
        parent: &'d Object<'a>,
        name: &str,
    ) -> Result<Option<&'d Object<'a>>, EditError> {
        match self.unique(parent, name)?.map(|member| &member.value) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(other) => Err(self.error(other.start(), format!("{name:?} must be an object"))),
        }
    }

    /// Root and container, for an entry that is known to be there.
    fn servers(&self, shape: Shape, name: &str) -> Result<(&Object<'a>, &Object<'a>), EditError> {
        let root = self.root()?;
        let servers = root.map(|root| self.object(root, shape.container)).transpose()?.flatten();
        match (root, servers) {
            (Some(root), Some(servers)) => {
                self.unique(servers, name)?;
                Ok((root, servers))
            }
            _ => Err(self.error(0, format!("there is no {:?}", shape.container))),
        }
    }

    /// The edits that put a member at an object's end.
    fn insertion(
        &self,
        object: &Object<'a>,
        name: &str,
        render: impl Fn(&Style, &str) -> String,
    ) -> Vec<Edit> {
        let style = self.style();
        let inside = object.start() + 1;
        let close = object.end() - 1;
        // Behind the last thing before the brace, comments included: they belong to what stands
        // before them.
        let last = self.before(close);
        let at = last.map_or(inside, |piece| piece.range.end);
        let on_lines = self.text.get(at..close).unwrap_or_default().contains('\n')
            || last.is_some_and(is_line_comment);
        let Some(neighbour) = object.properties.last() else {
            let outer = self.line_indent(object.start());
            let indent = format!("{outer}{}", style.unit);
            if at == inside && at == close {
                let member = format!("{}: {}", quoted(name), render(&style, &indent));
                let nl = style.newline;
                return vec![(at..at, format!("{nl}{nl}{indent}{member}{nl}{outer}"))];
            }
            let member = format!("{}: {}", quoted(name), render(&style, outer));
            return vec![(
                at..at,
                match (at == inside, on_lines) {
                    (true, _) => member,
                    (false, true) => {
                        let member = format!("{}: {}", quoted(name), render(&style, &indent));
                        format!("{}{indent}{member}", style.newline)
                    }
                    (false, false) => format!(" {member}"),
                },
            )];
        };
        let indent = self.line_indent(neighbour.start());
        let alone = self.line_start(neighbour.start()) + indent.len() == neighbour.start();
        let blank = if alone || last.is_some_and(is_line_comment) {
            format!("{}{indent}", style.newline)
        } else {
            " ".to_owned()
        };
        let member = format!("{blank}{}: {}", quoted(name), render(&style, indent));
        let end = neighbour.end();
        if self.comma_after(end).is_some() {
            vec![(at..at, member + ",")]
        } else if at == end {
            vec![(at..at, format!(",{member}"))]
        } else {
            vec![(end..end, ",".to_owned()), (at..at, member)]
        }
    }

    /// The edits that take a member out, with the blanks before it and one comma.
    fn removal(&self, object: &Object<'a>, name: &str) -> Result<Vec<Edit>, EditError> {
        let index = object.properties.iter().position(|member| member.name.as_str() == name);
        let Some((index, member)) = index.and_then(|i| Some((i, object.properties.get(i)?))) else {
            return Err(self.error(object.start(), format!("there is no {name:?}")));
        };
        let between = |from: usize, to: usize| self.text.get(from..to).unwrap_or_default();
        let (inside, close) = (object.start() + 1, object.end() - 1);
        let begins = between(inside, member.start());
        if object.properties.len() == 1 && begins.trim().is_empty() && lines(begins) == 2 {
            // The blank line of an object that was empty.
            let outer = self.line_indent(object.start());
            if between(member.end(), close) == format!("{}{outer}", self.style().newline) {
                return Ok(vec![(inside..close, String::new())]);
            }
        }
        if let (0, Some(next)) = (index, object.properties.get(1))
            && between(member.end(), next.start()).chars().all(|c| c == ',' || c.is_whitespace())
        {
            // What stands before the first member is the object's mark, and stays.
            return Ok(vec![(member.start()..next.start(), String::new())]);
        }
        let from = self.before(member.start()).map_or(member.start(), |piece| piece.range.end);
        let mut edits = vec![(from..member.end(), String::new())];
        let comma = match self.comma_after(member.end()) {
            Some(comma) => Some(comma),
            None => index
                .checked_sub(1)
                .and_then(|before| object.properties.get(before))
                .and_then(|before| self.comma_after(before.end())),
        };
        edits.extend(comma.map(|comma| (comma, String::new())));
        edits.sort_by_key(|(range, _)| range.start);
        Ok(edits)
    }

    /// Whether we made this object for its one member.
    fn is_made(&self, object: &Object<'a>) -> bool {
        let [member] = object.properties.as_slice() else { return false };
        let comment = |piece: &TokenAndRange<'_>| {
            let outside = piece.range.end <= member.start() || piece.range.start >= member.end();
            let inside = piece.range.start > object.start() && piece.range.end < object.end();
            inside
                && outside
                && matches!(piece.token, Token::CommentLine(_) | Token::CommentBlock(_))
        };
        let begins = self.text.get(object.start() + 1..member.start()).unwrap_or_default();
        lines(begins) == 1 && !self.pieces.iter().any(comment)
    }

    /// Whether the root looks as [`insert`] writes it into a file that was not there.
    fn is_laid_out_as_a_file(&self, root: &Object<'a>) -> bool {
        let Some(member) = root.properties.first() else { return false };
        let between = |range: Range<usize>| self.text.get(range).unwrap_or_default();
        between(root.start()..member.start()) == "{\n  "
            && between(member.end()..root.end()) == "\n}"
    }

    /// The last token or comment that ends at or before a byte.
    fn before(&self, byte: usize) -> Option<&TokenAndRange<'a>> {
        let count = self.pieces.partition_point(|piece| piece.range.end <= byte);
        count.checked_sub(1).and_then(|last| self.pieces.get(last))
    }

    /// The comma after a value, if one follows; comments may stand between.
    fn comma_after(&self, byte: usize) -> Option<Range<usize>> {
        let first = self.pieces.partition_point(|piece| piece.range.start < byte);
        let mut rest = self.pieces.get(first..)?.iter();
        let next = rest
            .find(|piece| !matches!(piece.token, Token::CommentLine(_) | Token::CommentBlock(_)))?;
        (next.token == Token::Comma).then_some(next.range.start..next.range.end)
    }

    fn line_start(&self, byte: usize) -> usize {
        let before = self.text.get(..byte).unwrap_or_default();
        before.rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// The blanks that the line of a byte begins with.
    fn line_indent(&self, byte: usize) -> &'a str {
        let line = self.text.get(self.line_start(byte)..byte).unwrap_or_default();
        let blanks = line.len() - line.trim_start_matches([' ', '\t']).len();
        line.get(..blanks).unwrap_or_default()
    }

    fn style(&self) -> Style {
        let newline = match self.text.find('\n') {
            Some(at) if self.text.get(..at).is_some_and(|t| t.ends_with('\r')) => "\r\n",
            _ => "\n",
        };
        let first = match &self.value {
            Some(Value::Object(root)) => root.properties.first(),
            _ => None,
        };
        let unit = first.map_or("", |member| self.line_indent(member.start()));
        let unit = if unit.is_empty() { "  " } else { unit };
        Style { newline, unit: unit.to_owned() }
    }
}

fn lines(blanks: &str) -> usize {
    blanks.matches('\n').count()
}

fn is_line_comment(piece: &TokenAndRange<'_>) -> bool {
    matches!(piece.token, Token::CommentLine(_))
}

fn launch(entry: &Value<'_>) -> Option<Launch> {
    let entry = entry.as_object()?;
    let command = entry.get_string("command")?;
    let arguments = entry.get_array("args")?.elements.iter();
    let arguments: Option<Vec<&str>> =
        arguments.map(|value| Some(value.as_string_lit()?.value.as_ref())).collect();
    Launch::read(&command.value, &arguments?)
}

fn entry_text(style: &Style, indent: &str, shape: Shape, launch: &Launch) -> String {
    let Style { newline, unit } = style;
    let line = |key: &str, value: &str| format!("{newline}{indent}{unit}{}: {value}", quoted(key));
    let mut lines = Vec::new();
    if let Some((key, value)) = shape.first {
        lines.push(line(key, &quoted(value)));
    }
    lines.push(line("command", &quoted(&launch.program)));
    lines.push(line("args", &array(&launch.arguments())));
    format!("{{{}{newline}{indent}}}", lines.join(","))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escape(text))
}

fn array(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}
