//! The shapes that data comes in: what an object's members, or a table's columns, say of the
//! values beside and below them.

use super::Masker;
use super::class::Class;
use super::doc::Place;
use super::fields::{Field, Part, Strength};
use crate::mcp::json::Kind;

/// One member of an object.
#[derive(Clone, Copy)]
pub(super) struct Member {
    /// Its key's node; its value's node is the next.
    pub(super) key: u32,
    /// Its key's number among the message's names.
    pub(super) name: u32,
    /// What its key says.
    pub(super) field: Field,
}

/// What an object's members say of one another.
#[derive(Default)]
pub(super) struct Shape {
    /// It has facts about a person.
    pub(super) personal: bool,
    /// What its `name`, `key` or `field` says about its `value`.
    pub(super) named: Option<(Class, Strength)>,
    /// The columns that it declares for its rows.
    pub(super) columns: Option<Columns>,
}

/// What columns hold, in order.
pub(super) struct Columns {
    pub(super) fields: Vec<Field>,
    /// Their names are the first of the rows.
    pub(super) in_first_row: bool,
}

impl Shape {
    pub(super) fn of(place: Place<'_>, members: &[Member], masker: &Masker) -> Self {
        let part = |wanted: Part| members.iter().filter(move |member| member.field.part == wanted);
        let mut shape = Self::default();
        let (mut has_value, mut has_rows) = (false, false);
        for Member { field, .. } in members {
            shape.personal |= field.is_personal();
            has_value |= field.part == Part::Value;
            has_rows |= field.part == Part::Rows;
        }
        if has_value {
            shape.named = part(Part::Key)
                .chain(part(Part::Name))
                .find_map(|member| masker.fields.resolve(place.string_at(member.key + 1)?).rule);
        }
        if has_rows {
            shape.columns =
                part(Part::Columns).find_map(|member| columns(place, member.key + 1, masker));
        }
        shape
    }
}

/// Reads a list of column names: strings, or objects that have one.
fn columns(place: Place<'_>, at: u32, masker: &Masker) -> Option<Columns> {
    if place.kind(at) != Some(Kind::Array) {
        return None;
    }
    let mut fields: Vec<Field> = place
        .doc
        .children(at)
        .map(|(column, node)| {
            let name = match node.kind {
                Kind::String => place.string_at(column),
                Kind::Object => ["name", "key", "field", "column", "label", "header", "title"]
                    .iter()
                    .find_map(|name| place.string_at(place.member(column, name)?)),
                _ => None,
            };
            name.map_or(Field::NONE, |name| masker.fields.resolve(name))
        })
        .collect();
    if fields.iter().any(|field| field.is_personal()) {
        for field in fields.iter_mut().filter(|field| field.part == Part::Name) {
            field.rule = masker.name_rule();
        }
    }
    Some(Columns { fields, in_first_row: false })
}

/// The columns of an array of rows whose first row holds their names.
pub(super) fn header_row(place: Place<'_>, at: u32, masker: &Masker) -> Option<Columns> {
    let mut rows = place.doc.children(at);
    let (first, _) = rows.next().filter(|(_, node)| node.kind == Kind::Array)?;
    rows.next().filter(|(_, node)| node.kind == Kind::Array)?;
    let mut names = place.doc.children(first);
    let short =
        |at: u32| place.string_at(at).is_some_and(|name| !name.is_empty() && name.len() < 64);
    if !names.all(|(name, _)| short(name)) {
        return None;
    }
    let columns = columns(place, first, masker)?;
    let telling = columns.fields.iter().any(|field| field.rule.is_some());
    (telling && columns.fields.len() > 1).then_some(Columns { in_first_row: true, ..columns })
}

/// What a sensitive object hands down to its members: `"name": {"given": …}`.
pub(super) fn inherited(place: Place<'_>, at: u32, field: Field) -> Option<(Class, Strength)> {
    const REACHING: &[Class] = &[
        Class::CARD,
        Class::CVV,
        Class::SSN,
        Class::NAME,
        Class::PHONE,
        Class::ADDRESS,
        Class::NATIONAL_ID,
        Class::ACCOUNT,
        Class::MRN,
        Class::HEALTH_PLAN,
    ];
    let rule = field
        .rule
        .filter(|(class, strength)| *strength == Strength::Sure && REACHING.contains(class))?;
    // A schema describes the field and holds none of its values.
    const TYPES: &[&str] = &["string", "number", "integer", "object", "array", "boolean"];
    let kind = place.member(at, "type").and_then(|at| place.string_at(at));
    (!kind.is_some_and(|kind| TYPES.contains(&kind))).then_some(rule)
}
