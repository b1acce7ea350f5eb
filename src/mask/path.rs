//! Where in a message the walk is, and how a finding says so: a JSON pointer (RFC 6901) in which
//! `#` leads into the JSON that a string holds.
//!
//! Findings come in the order of the message, so what one pointer shares with the one before is
//! written once.

/// One step into a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A key, by its number among the message's keys.
    Key(usize),
    Index(usize),
    /// Into the JSON that a string holds.
    Inside,
}

/// The steps from the message's root.
#[derive(Debug, Default)]
pub(super) struct Path {
    steps: Vec<Step>,
    /// The pointer of the first steps, as far as somebody asked for it.
    written: String,
    /// Where in `written` each of those steps ends.
    ends: Vec<usize>,
}

impl Path {
    pub(super) fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub(super) fn pop(&mut self) {
        self.steps.pop();
        if self.ends.len() > self.steps.len() {
            self.ends.truncate(self.steps.len());
            self.written.truncate(self.ends.last().copied().unwrap_or(0));
        }
    }

    pub(super) fn last(&self) -> Option<Step> {
        self.steps.last().copied()
    }

    /// The pointer to here. `key` gives a key as it may be shown, always the same for a number.
    pub(super) fn pointer(&mut self, mut key: impl FnMut(usize) -> String) -> &str {
        for step in self.steps.iter().skip(self.ends.len()) {
            match step {
                Step::Index(index) => {
                    self.written.push('/');
                    self.written.push_str(&index.to_string());
                }
                Step::Inside => self.written.push('#'),
                Step::Key(number) => {
                    self.written.push('/');
                    self.written.push_str(&key(*number).replace('~', "~0").replace('/', "~1"));
                }
            }
            self.ends.push(self.written.len());
        }
        &self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> String {
        ["result", "a/b~c", ""][number].to_owned()
    }

    #[test]
    fn says_where_it_is_after_any_way_there() {
        let mut path = Path::default();
        assert_eq!(path.pointer(key), "");
        path.push(Step::Key(0));
        path.push(Step::Index(10));
        assert_eq!(path.pointer(key), "/result/10");
        path.push(Step::Key(1));
        path.push(Step::Inside);
        path.push(Step::Key(2));
        assert_eq!(path.pointer(key), "/result/10/a~1b~0c#/");
        path.pop();
        path.pop();
        path.pop();
        // Steps that came and went without anybody asking.
        path.push(Step::Index(1));
        path.pop();
        assert_eq!(path.pointer(key), "/result/10");
        path.pop();
        path.push(Step::Index(11));
        assert_eq!(path.pointer(key), "/result/11");
        assert!(matches!(path.last(), Some(Step::Index(11))));
        path.pop();
        path.pop();
        path.push(Step::Inside);
        assert_eq!(path.pointer(key), "#");
    }
}
