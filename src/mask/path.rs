//! Where in a message the walk is, and how a finding says so: a JSON pointer (RFC 6901) in which
//! `#` leads into the JSON that a string holds.
//!
//! Most places are never asked for, and those that are share their beginnings, so places are
//! numbered as a tree while the walk goes on, and written out at its end.

/// One step into a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A key, by its number among the message's keys.
    Key(u32),
    Index(u32),
    /// Into the JSON that a string holds.
    Inside,
}

/// The number of a place that was asked for; the root is 0.
pub(super) type At = u32;

/// The steps from the message's root.
#[derive(Debug, Default)]
pub(super) struct Path {
    steps: Vec<Step>,
    /// The places of the first steps, as far as somebody asked for them.
    known: Vec<At>,
    places: Places,
}

/// The places that were asked for and those on the way there: the place before, and the last step.
/// The root is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(Vec<(At, Step)>);

impl Path {
    pub(super) fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub(super) fn pop(&mut self) {
        self.steps.pop();
        self.known.truncate(self.steps.len());
    }

    pub(super) fn last(&self) -> Option<Step> {
        self.steps.last().copied()
    }

    /// The place that the walk is at.
    pub(super) fn here(&mut self) -> At {
        for step in self.steps.iter().skip(self.known.len()) {
            let before = self.known.last().copied().unwrap_or(0);
            self.known.push(self.places.add(before, *step));
        }
        self.known.last().copied().unwrap_or(0)
    }

    /// The place one step from another, wherever the walk is.
    pub(super) fn place(&mut self, before: At, step: Step) -> At {
        self.places.add(before, step)
    }

    /// Every place, when the walk is over.
    pub(super) fn into_places(self) -> Places {
        self.places
    }
}

impl Places {
    /// The place one step from `before`.
    pub(super) fn add(&mut self, before: At, step: Step) -> At {
        self.0.push((before, step));
        number(self.0.len())
    }

    fn get(&self, at: At) -> Option<(At, Step)> {
        self.0.get((at as usize).checked_sub(1)?).copied()
    }
}

/// Writes places out, one after the other. What one shares with the one before is not written
/// again.
#[derive(Debug)]
pub(super) struct Writer<'p> {
    places: &'p Places,
    pointer: String,
    /// The places on the way, and where in `pointer` each ends.
    written: Vec<(At, usize)>,
    prefix: usize,
    way: Vec<(At, Step)>,
}

impl<'p> Writer<'p> {
    /// `prefix` stands before every pointer.
    pub(super) fn new(places: &'p Places, prefix: &str) -> Self {
        let pointer = prefix.to_owned();
        Self { places, pointer, written: Vec::new(), prefix: prefix.len(), way: Vec::new() }
    }

    /// The pointer to a place. `key` gives a key as it may be shown, always the same for a number.
    pub(super) fn pointer<'k>(&mut self, at: At, key: impl Fn(u32) -> &'k str) -> &str {
        self.way.clear();
        let mut next = at;
        while let Some((before, step)) = self.places.get(next) {
            self.way.push((next, step));
            next = before;
        }
        self.way.reverse();
        let ways = self.way.iter().zip(&self.written);
        let shared = ways.take_while(|((at, _), (known, _))| at == known).count();
        self.written.truncate(shared);
        self.pointer.truncate(self.written.last().map_or(self.prefix, |(_, end)| *end));
        for (at, step) in self.way.iter().skip(shared) {
            match step {
                Step::Index(index) => {
                    self.pointer.push('/');
                    self.pointer.push_str(&index.to_string());
                }
                Step::Inside => self.pointer.push('#'),
                Step::Key(number) => {
                    self.pointer.push('/');
                    push_key(&mut self.pointer, key(*number));
                }
            }
            self.written.push((*at, self.pointer.len()));
        }
        &self.pointer
    }
}

fn push_key(pointer: &mut String, key: &str) {
    if memchr::memchr2(b'~', b'/', key.as_bytes()).is_none() {
        return pointer.push_str(key);
    }
    pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
}

/// A message has fewer places than bytes, and at most 64 MiB of those.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> &'static str {
        ["result", "a/b~c", ""][number as usize]
    }

    #[test]
    fn says_where_it_is_after_any_way_there() {
        let mut path = Path::default();
        let mut asked = vec![(path.here(), "")];
        path.push(Step::Key(0));
        path.push(Step::Index(10));
        asked.push((path.here(), "/result/10"));
        asked.push((path.here(), "/result/10"));
        path.push(Step::Key(1));
        path.push(Step::Inside);
        path.push(Step::Key(2));
        asked.push((path.here(), "/result/10/a~1b~0c#/"));
        path.pop();
        path.pop();
        path.pop();
        // Steps that came and went without anybody asking.
        path.push(Step::Index(1));
        path.pop();
        asked.push((path.here(), "/result/10"));
        path.pop();
        path.push(Step::Index(11));
        asked.push((path.here(), "/result/11"));
        assert!(matches!(path.last(), Some(Step::Index(11))));
        path.pop();
        path.pop();
        path.push(Step::Inside);
        asked.push((path.here(), "#"));
        let mut places = path.into_places();
        asked.push((places.add(asked[1].0, Step::Index(2)), "/result/10/2"));
        for prefix in ["", "text"] {
            let mut writer = Writer::new(&places, prefix);
            for (at, pointer) in asked.iter().chain(asked.iter().rev()) {
                assert_eq!(writer.pointer(*at, key), format!("{prefix}{pointer}"));
            }
        }
    }
}
