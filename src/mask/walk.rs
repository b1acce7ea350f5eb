//! The one walk over a document: what each value is, what patterns find in it, and what its name
//! or surroundings teach about values elsewhere.
//!
//! What may have to be changed is left behind as [`Sites`], since a value may be given away only
//! further on in the message.

use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::RandomState;

use super::Masker;
use super::class::Class;
use super::detect::{self, Finds, Hit};
use super::doc::{Doc, Node, Place, Regions};
use super::fields::{Field, Part, Strength};
use super::keys::KeyedObject;
use super::message::{Facts, Role, block_role};
use super::path::{Path, Step};
use super::shape::{Columns, Member, Shape, header_row, inherited};
use super::sites::{Holder, Masking, Search, Sites};
use super::values::Values;
use crate::mcp::json::Kind;

/// The state of masking one message.
pub(super) struct Walk<'a> {
    pub(super) masker: &'a Masker,
    /// All of it.
    pub(super) text: &'a str,
    pub(super) names: Names<'a>,
    pub(super) values: Values<'a>,
    pub(super) sites: Sites<'a>,
    /// The objects whose keys are data.
    pub(super) keyed: Vec<KeyedObject<'a>>,
    pub(super) path: Path,
    pub(super) finds: Finds,
    /// The members of the objects that the walk is in, the innermost last.
    members: Vec<Member>,
}

/// Every key of the message once, with what it means.
#[derive(Default)]
pub(super) struct Names<'a> {
    numbers: HashMap<&'a str, u32, RandomState>,
    pub(super) names: Vec<(&'a str, Field)>,
}

/// A value's document, and where that is.
#[derive(Clone, Copy)]
pub(super) struct Here<'a> {
    pub(super) place: Place<'a>,
    /// Among the levels of [`Sites`].
    pub(super) level: u32,
}

impl<'a> Walk<'a> {
    pub(super) fn new(masker: &'a Masker, text: &'a str) -> Self {
        Self {
            masker,
            text,
            names: Names::default(),
            values: Values::default(),
            sites: Sites::default(),
            keyed: Vec::new(),
            path: Path::default(),
            finds: Finds::default(),
            members: Vec::new(),
        }
    }

    /// Masks the text as a document whose root has `role`.
    pub(super) fn document(mut self, doc: &'a Doc, role: Role) -> Masking {
        let here =
            Here { place: Place { text: self.text, doc }, level: self.sites.root(Some(doc)) };
        self.value(here, 0, role, Field::NONE);
        self.finish()
    }

    /// Masks the text as words, with JSON in between.
    pub(super) fn text(mut self, regions: &'a Regions) -> Masking {
        let level = self.sites.root(None);
        self.parts(self.text, regions, Holder { level, node: None, base: 0 }, Field::NONE);
        self.finish()
    }

    fn value(&mut self, here: Here<'a>, at: u32, role: Role, field: Field) {
        let Some(node) = here.place.doc.node(at) else { return };
        if role == Role::Keep {
            return;
        }
        match node.kind {
            Kind::Object => self.object(here, at, role, field),
            Kind::Array => self.array(here, at, role, field),
            Kind::String => self.string(here, node, role, field),
            Kind::Number => self.number(here, node, role, field),
            _ => {}
        }
    }

    fn object(&mut self, here: Here<'a>, at: u32, role: Role, field: Field) {
        let place = here.place;
        let role = match role {
            Role::Block { .. } => self.block(place, at),
            other => other,
        };
        let data_keys = role.has_data_keys();
        let first = self.members.len();
        for (key, node) in place.doc.children(at) {
            if node.kind == Kind::Key {
                let name = self.names.number(self.masker, place.string(node));
                self.members.push(Member { key, name, field: self.names.field(name) });
            }
        }
        if data_keys {
            let path = self.path.here();
            self.keyed.push(KeyedObject { here, at, path });
        }
        let facts = Facts {
            method: match role {
                Role::Envelope | Role::Request => {
                    place.member(at, "method").and_then(|at| place.string_at(at))
                }
                _ => None,
            },
        };
        let members = self.members.get(first..).unwrap_or_default();
        let shape = Shape::of(place, members, self.masker);
        let inherited = inherited(place, at, field);
        let end = self.members.len();
        for index in first..end {
            let Some(&member) = self.members.get(index) else { continue };
            let member_role = role.member(self.names.text(member.name), facts);
            let mut inner = member.field;
            if inner.rule.is_none() && !inner.veto && inner.part != Part::Neutral {
                let from_siblings = match inner.part {
                    Part::Name if shape.personal => self.masker.name_rule(),
                    Part::Value => shape.named,
                    _ => None,
                };
                inner.rule = from_siblings.or(inherited);
            }
            self.path.push(Step::Key(member.name));
            match &shape.columns {
                Some(columns) if data_keys && inner.part == Part::Rows => {
                    self.rows(here, member.key + 1, columns);
                }
                _ => self.value(here, member.key + 1, member_role, inner),
            }
            self.path.pop();
        }
        self.members.truncate(first);
    }

    /// The role of an object where content blocks stand.
    fn block(&self, place: Place<'a>, at: u32) -> Role {
        let kind = place.member(at, "type").and_then(|at| place.string_at(at));
        block_role(kind, matches!(self.path.last(), Some(Step::Index(_))))
    }

    fn array(&mut self, here: Here<'a>, at: u32, role: Role, field: Field) {
        let element = role.element();
        if element == Role::Data
            && let Some(columns) = header_row(here.place, at, self.masker)
        {
            return self.rows(here, at, &columns);
        }
        for (index, (child, _)) in (0..).zip(here.place.doc.children(at)) {
            self.path.push(Step::Index(index));
            self.value(here, child, element, field);
            self.path.pop();
        }
    }

    /// Rows whose cells belong to columns; a first row of column names is simply one of them.
    fn rows(&mut self, here: Here<'a>, at: u32, columns: &Columns) {
        let doc = here.place.doc;
        if here.place.kind(at) != Some(Kind::Array) {
            return self.value(here, at, Role::Data, Field::NONE);
        }
        for (index, (row, node)) in (0..).zip(doc.children(at)) {
            self.path.push(Step::Index(index));
            if node.kind == Kind::Array && !(index == 0 && columns.in_first_row) {
                let fields = columns.fields.iter().copied().chain(std::iter::repeat(Field::NONE));
                for (index, ((cell, _), field)) in (0..).zip(doc.children(row).zip(fields)) {
                    self.path.push(Step::Index(index));
                    self.value(here, cell, Role::Data, field);
                    self.path.pop();
                }
            } else {
                self.value(here, row, Role::Data, Field::NONE);
            }
            self.path.pop();
        }
    }

    fn string(&mut self, here: Here<'a>, node: &'a Node, role: Role, field: Field) {
        let doc = here.place.doc;
        let text = here.place.string(node);
        if role == Role::KeepScalar || (role == Role::Blob && is_base64(text)) {
            return;
        }
        let field = if role == Role::Text { Field::NONE } else { field };
        let holder = Holder { level: here.level, node: Some(node), base: 0 };
        if let Some((class, _)) = field.rule.filter(|(class, how)| says(*class, *how, text)) {
            if let Some(hit) = Hit::new(text, 0..text.len(), class) {
                self.values.add(class, text);
                self.sites.add(text, holder, self.path.here(), [hit], Search::Not);
            }
            return;
        }
        const NONE: &Regions = &Regions::new();
        self.parts(text, doc.leaf(node).map_or(NONE, |leaf| &leaf.regions), holder, field);
    }

    /// Goes over a text and the JSON in it.
    fn parts(&mut self, text: &'a str, regions: &'a Regions, holder: Holder<'a>, field: Field) {
        let mut at = 0;
        for (range, doc) in regions {
            self.plain(text, at..range.start, holder, field);
            at = range.end;
            // A region's nodes count from the text's beginning, but for a string that is JSON,
            // whose text was trimmed.
            let first = doc.node(0).map_or(0, |node| node.range().start);
            let base = if first == range.start { 0 } else { range.start };
            let Some(inner) = text.get(base..) else { continue };
            let level = self.sites.enter(holder.at(base), doc);
            self.path.push(Step::Inside);
            let here = Here { place: Place { text: inner, doc }, level };
            self.value(here, 0, Role::Data, Field::NONE);
            self.path.pop();
        }
        self.plain(text, at..text.len(), holder, field);
    }

    /// Looks into the part of a text in which no JSON stands.
    fn plain(&mut self, text: &'a str, range: Range<usize>, holder: Holder<'a>, field: Field) {
        let base = range.start;
        let Some(part) = text.get(range).filter(|part| !part.is_empty()) else { return };
        self.masker.detector.find(&self.masker.fields, field, part, &mut self.finds);
        for (class, range) in self.finds.named.drain(..) {
            self.values.add(class, part.get(range).unwrap_or_default());
        }
        let search = if field.veto { Search::Not } else { Search::Within };
        if search == Search::Within || !self.finds.hits.is_empty() {
            let path = self.path.here();
            let hits = self.finds.hits.drain(..);
            self.sites.add(part, holder.at(base), path, hits, search);
        }
    }

    fn number(&mut self, here: Here<'a>, node: &Node, role: Role, field: Field) {
        let raw = here.place.text.get(node.range());
        let Some(raw) = raw.filter(|_| role == Role::Data) else { return };
        let digits = raw.bytes().filter(u8::is_ascii_digit).count();
        let named = field.rule.filter(|(class, _)| number_fits(*class, digits));
        let whole = digits == raw.len();
        let class = match named {
            Some((class, _)) => {
                self.values.add(class, raw);
                Some(class)
            }
            None if field.veto || !whole || digits < 7 => return,
            None => {
                let card = self.masker.detector.is_on(Class::CARD) && detect::is_card(raw);
                card.then_some(Class::CARD)
            }
        };
        let holder = Holder { level: here.level, node: None, base: 0 }.at(node.range().start);
        let hit = class.and_then(|class| Hit::number(raw, class));
        let search = if class.is_none() { Search::Number } else { Search::Not };
        self.sites.add(raw, holder, self.path.here(), hit, search);
    }
}

impl<'a> Names<'a> {
    fn number(&mut self, masker: &Masker, key: &'a str) -> u32 {
        if let Some(number) = self.numbers.get(key) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push((key, masker.fields.resolve(key)));
        self.numbers.insert(key, number);
        number
    }

    /// The number of a key that has been seen.
    pub(super) fn known(&self, key: &str) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    pub(super) fn text(&self, number: u32) -> &'a str {
        self.names.get(number as usize).map_or("", |(text, _)| text)
    }

    fn field(&self, number: u32) -> Field {
        self.names.get(number as usize).map_or(Field::NONE, |(_, field)| *field)
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
