//! The engine itself: one walk over a document that learns, and one that masks.
//!
//! The first walk collects the values that names give away, the second masks them together with
//! what patterns find. Both run the same code, so what is learnt is exactly what field rules mask.

use std::collections::HashMap;
use std::ops::Range;

use super::class::Class;
use super::detect::{self, Hit};
use super::doc::{Node, Place, Regions};
use super::fields::{Field, Part, Strength};
use super::message::{Facts, Role, block_role};
use super::path::{Path, Step};
use super::redact;
use super::shape::{Columns, Member, Shape, header_row, inherited};
use super::values::Values;
use super::{Finding, Masker};
use crate::mcp::json::{Kind, escape};

/// Replacements in a text, in ascending order.
pub(super) type Edits = Vec<(Range<usize>, String)>;

/// The state of masking one message.
pub(super) struct Walk<'m> {
    masker: &'m Masker,
    learning: bool,
    names: Names,
    values: Values,
    findings: Vec<Finding>,
    path: Path,
}

/// Every key of the message once, with what it means.
#[derive(Default)]
struct Names {
    numbers: HashMap<Box<str>, usize>,
    names: Vec<Name>,
}

struct Name {
    text: Box<str>,
    field: Field,
    /// What the key is masked to, once that has been asked: `Some(None)` for not at all.
    masked: Option<Option<Hit>>,
}

impl<'m> Walk<'m> {
    pub(super) fn new(masker: &'m Masker) -> Self {
        Self {
            masker,
            learning: true,
            names: Names::default(),
            values: Values::default(),
            findings: Vec::new(),
            path: Path::default(),
        }
    }

    /// Masks a document whose root has `role`.
    pub(super) fn document(mut self, place: Place<'_>, role: Role) -> (Edits, Vec<Finding>) {
        let mut edits = Vec::new();
        self.value(place, 0, role, Field::NONE, &mut edits);
        self.learning = false;
        edits.clear();
        self.value(place, 0, role, Field::NONE, &mut edits);
        (edits, self.findings)
    }

    /// Masks a text that stands alone.
    pub(super) fn text(mut self, text: &str, regions: &Regions) -> (Edits, Vec<Finding>) {
        self.parts(text, regions, Field::NONE);
        self.learning = false;
        let edits = self.parts(text, regions, Field::NONE);
        (edits, self.findings)
    }

    fn value(&mut self, place: Place<'_>, at: u32, role: Role, field: Field, edits: &mut Edits) {
        let Some(node) = place.doc.node(at) else { return };
        if role == Role::Keep {
            return;
        }
        match node.kind {
            Kind::Object => self.object(place, at, role, field, edits),
            Kind::Array => self.array(place, at, role, field, edits),
            Kind::String => self.string(place, node, role, field, edits),
            Kind::Number => self.number(place, node, role, field, edits),
            _ => {}
        }
    }

    fn object(&mut self, place: Place<'_>, at: u32, role: Role, field: Field, edits: &mut Edits) {
        let role = match role {
            Role::Block { .. } => self.block(place, at),
            other => other,
        };
        let data_keys = role.has_data_keys();
        let mut members: Vec<Member> = Vec::new();
        for (key, node) in place.doc.children(at) {
            if node.kind == Kind::Key {
                let name = self.names.number(self.masker, place.string(node));
                members.push(Member { key, name, field: self.names.field(name) });
            }
        }
        let facts = Facts {
            method: match role {
                Role::Envelope | Role::Request => {
                    place.member(at, "method").and_then(|at| place.string_at(at))
                }
                _ => None,
            },
        };
        let shape = Shape::of(place, &members, self.masker);
        let inherited = inherited(place, at, field);
        let mut taken = HashMap::new();
        for member in &members {
            let Some(own) = self.names.names.get(member.name) else { continue };
            let member_role = role.member(&own.text, facts);
            let mut inner = member.field;
            if inner.rule.is_none() && !inner.veto && inner.part != Part::Neutral {
                let from_siblings = match inner.part {
                    Part::Name if shape.personal => self.masker.name_rule(),
                    Part::Value => shape.named,
                    _ => None,
                };
                inner.rule = from_siblings.or(inherited);
            }
            if data_keys && !self.learning {
                self.key(place, *member, &members, &mut taken, edits);
            }
            self.path.push(Step::Key(member.name));
            match &shape.columns {
                Some(columns) if data_keys && inner.part == Part::Rows => {
                    self.rows(place, member.key + 1, columns, edits);
                }
                _ => self.value(place, member.key + 1, member_role, inner, edits),
            }
            self.path.pop();
        }
    }

    /// The role of an object where content blocks stand.
    fn block(&self, place: Place<'_>, at: u32) -> Role {
        let kind = place.member(at, "type").and_then(|at| place.string_at(at));
        block_role(kind, matches!(self.path.last(), Some(Step::Index(_))))
    }

    fn array(&mut self, place: Place<'_>, at: u32, role: Role, field: Field, edits: &mut Edits) {
        let element = role.element();
        if element == Role::Data
            && let Some(columns) = header_row(place, at, self.masker)
        {
            return self.rows(place, at, &columns, edits);
        }
        for (index, (child, _)) in place.doc.children(at).enumerate() {
            self.path.push(Step::Index(index));
            self.value(place, child, element, field, edits);
            self.path.pop();
        }
    }

    /// Rows whose cells belong to columns; a first row of column names is simply one of them.
    fn rows(&mut self, place: Place<'_>, at: u32, columns: &Columns, edits: &mut Edits) {
        if place.kind(at) != Some(Kind::Array) {
            return self.value(place, at, Role::Data, Field::NONE, edits);
        }
        for (index, (row, node)) in place.doc.children(at).enumerate() {
            self.path.push(Step::Index(index));
            if node.kind == Kind::Array && !(index == 0 && columns.in_first_row) {
                for (cell_index, (cell, _)) in place.doc.children(row).enumerate() {
                    let field = columns.fields.get(cell_index).copied().unwrap_or(Field::NONE);
                    self.path.push(Step::Index(cell_index));
                    self.value(place, cell, Role::Data, field, edits);
                    self.path.pop();
                }
            } else {
                self.value(place, row, Role::Data, Field::NONE, edits);
            }
            self.path.pop();
        }
    }

    fn string(
        &mut self,
        place: Place<'_>,
        node: &Node,
        role: Role,
        field: Field,
        edits: &mut Edits,
    ) {
        let text = place.string(node);
        if role == Role::KeepScalar || (role == Role::Blob && is_base64(text)) {
            return;
        }
        let field = if role == Role::Text { Field::NONE } else { field };
        let found = match field.rule.filter(|(class, strength)| says(*class, *strength, text)) {
            Some((class, _)) => {
                let hit = Hit::new(text, 0..text.len(), class);
                if self.learning {
                    if hit.is_some() {
                        self.values.add(class, text);
                    }
                    return;
                }
                let hits: Vec<Hit> = hit.into_iter().collect();
                self.report(&hits)
            }
            None => {
                let none = Regions::new();
                let regions = place.doc.leaf(node).map_or(&none, |leaf| &leaf.regions);
                self.parts(text, regions, field)
            }
        };
        for (range, replacement) in found {
            edits.push((place.doc.raw_range(node, &range), escape(&replacement)));
        }
    }

    /// Masks a text and the JSON in it; the edits are in the text's own terms.
    fn parts(&mut self, text: &str, regions: &Regions, field: Field) -> Edits {
        let mut edits = Vec::new();
        let mut at = 0;
        for (range, doc) in regions {
            self.plain(text, at..range.start, field, &mut edits);
            at = range.end;
            // A region's nodes count from the text's beginning, but for a string that is JSON,
            // whose text was trimmed.
            let first = doc.node(0).map_or(0, |node| node.range().start);
            let base = if first == range.start { 0 } else { range.start };
            let Some(inner) = text.get(base..) else { continue };
            let mut inner_edits = Vec::new();
            self.path.push(Step::Inside);
            self.value(Place { text: inner, doc }, 0, Role::Data, Field::NONE, &mut inner_edits);
            self.path.pop();
            edits.extend(
                inner_edits.into_iter().map(|(range, replacement)| {
                    (base + range.start..base + range.end, replacement)
                }),
            );
        }
        self.plain(text, at..text.len(), field, &mut edits);
        edits
    }

    /// Masks the part of a text in which no JSON stands.
    fn plain(&mut self, text: &str, range: Range<usize>, field: Field, edits: &mut Edits) {
        let Some(part) = text.get(range.clone()).filter(|part| !part.is_empty()) else { return };
        let mut hits = Vec::new();
        if self.learning {
            self.masker.detector.find_named(&self.masker.fields, part, &mut hits);
            for hit in &hits {
                self.values.add(hit.class, part.get(hit.range.clone()).unwrap_or_default());
            }
            return;
        }
        self.masker.detector.find(&self.masker.fields, field, part, &mut hits);
        if !field.veto {
            self.values.find(part, &mut hits);
        }
        detect::settle(part, &mut hits);
        edits.extend(self.report(&hits).into_iter().map(|(hit, replacement)| {
            (range.start + hit.start..range.start + hit.end, replacement)
        }));
    }

    fn number(
        &mut self,
        place: Place<'_>,
        node: &Node,
        role: Role,
        field: Field,
        edits: &mut Edits,
    ) {
        let Some(raw) = place.text.get(node.range()).filter(|_| role == Role::Data) else { return };
        let digits = raw.bytes().filter(u8::is_ascii_digit).count();
        let named = field.rule.filter(|(class, _)| number_fits(*class, digits));
        if self.learning {
            if let Some((class, _)) = named {
                self.values.add(class, raw);
            }
            return;
        }
        let whole = digits == raw.len();
        let class = match named {
            Some((class, _)) => Some(class),
            None if field.veto || !whole || digits < 7 => None,
            None => {
                let card = self.masker.detector.is_on(Class::CARD) && detect::is_card(raw);
                card.then_some(Class::CARD).or_else(|| self.values.class_of(raw))
            }
        };
        let replacement = redact::number(raw);
        if let Some(class) = class.filter(|_| raw != replacement) {
            let pointer = self.pointer();
            self.findings.push(Finding { class, pointer });
            edits.push((node.range(), replacement.to_owned()));
        }
    }

    /// Masks a key that is itself sensitive, without making it equal to another one.
    fn key(
        &mut self,
        place: Place<'_>,
        member: Member,
        members: &[Member],
        taken: &mut HashMap<String, u32>,
        edits: &mut Edits,
    ) {
        let Some(hit) = self.masked_key(member.name).cloned() else { return };
        if taken.is_empty() {
            for other in members {
                if self.masked_key(other.name).is_none()
                    && let Some(other) = self.names.names.get(other.name)
                {
                    taken.insert(other.text.to_string(), 0);
                }
            }
        }
        let mut unique = hit.replacement.clone();
        while let Some(count) = taken.get_mut(&unique) {
            *count += 1;
            unique = format!("{}-{}", hit.replacement, *count + 1);
        }
        taken.insert(unique.clone(), 0);
        self.path.push(Step::Key(member.name));
        let pointer = self.pointer();
        self.path.pop();
        self.findings.push(Finding { class: hit.class, pointer });
        if let Some(node) = place.doc.node(member.key) {
            let length = place.string(node).len();
            edits.push((place.doc.raw_range(node, &(0..length)), escape(&unique)));
        }
    }

    /// What a key is masked to, if it is sensitive.
    fn masked_key(&mut self, name: usize) -> Option<&Hit> {
        let name = self.names.names.get_mut(name)?;
        if name.masked.is_none() {
            let mut hits = Vec::new();
            self.masker.detector.find(&self.masker.fields, Field::NONE, &name.text, &mut hits);
            self.values.find(&name.text, &mut hits);
            detect::settle(&name.text, &mut hits);
            name.masked = Some(hits.first().map(|first| first.class).map(|class| {
                let replacement = apply(&name.text, &hits);
                Hit { range: 0..name.text.len(), class, replacement }
            }));
        }
        name.masked.as_ref()?.as_ref()
    }

    /// Turns hits into edits and reports them as findings at the current place.
    fn report(&mut self, hits: &[Hit]) -> Edits {
        if hits.is_empty() {
            return Vec::new();
        }
        let pointer = self.pointer();
        self.findings
            .extend(hits.iter().map(|hit| Finding { class: hit.class, pointer: pointer.clone() }));
        hits.iter().map(|hit| (hit.range.clone(), hit.replacement.clone())).collect()
    }

    /// Where the walk is; sensitive keys are shown masked.
    fn pointer(&mut self) -> String {
        let mut path = std::mem::take(&mut self.path);
        let pointer = path.pointer(|name| {
            let masked = self.masked_key(name).map(|hit| hit.replacement.clone());
            let plain = || self.names.names.get(name).map(|name| name.text.to_string());
            masked.or_else(plain).unwrap_or_default()
        });
        let pointer = pointer.to_owned();
        self.path = path;
        pointer
    }
}

impl Names {
    fn number(&mut self, masker: &Masker, key: &str) -> usize {
        if let Some(number) = self.numbers.get(key) {
            return *number;
        }
        let number = self.names.len();
        let field = masker.fields.resolve(key);
        self.names.push(Name { text: key.into(), field, masked: None });
        self.numbers.insert(key.into(), number);
        number
    }

    fn field(&self, number: usize) -> Field {
        self.names.get(number).map_or(Field::NONE, |name| name.field)
    }
}

/// Whether a field's name decides over this string.
fn says(class: Class, strength: Strength, text: &str) -> bool {
    !detect::is_trivial(text) && (strength == Strength::Sure || detect::fits(class, text))
}

/// Whether a number with so many digits can be of a class.
fn number_fits(class: Class, digits: usize) -> bool {
    digits
        >= match class {
            Class::CARD => 12,
            Class::SSN | Class::PHONE => 7,
            Class::DOB => 6,
            Class::ACCOUNT | Class::NATIONAL_ID => 5,
            Class::MRN | Class::HEALTH_PLAN | Class::CVV | Class::PASSWORD => 3,
            _ => return false,
        }
}

fn is_base64(text: &str) -> bool {
    let inside = |b: u8| {
        b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_' | b'\r' | b'\n')
    };
    text.bytes().all(inside)
}

/// Writes a text with its hits replaced.
fn apply(text: &str, hits: &[Hit]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for hit in hits {
        out.push_str(text.get(at..hit.range.start).unwrap_or_default());
        out.push_str(&hit.replacement);
        at = hit.range.end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}
