//! Ids as people type them: whole, or as much of the beginning as is unique.

use crate::cli::error::{CliError, Kind};

/// Something that has an id.
pub trait Named {
    /// Its id.
    fn name(&self) -> &str;
}

/// The one thing that `given` names: by a whole id, or by a beginning that no other shares (with
/// or without the prefix that says its kind).
///
/// # Errors
/// [`Kind::Failure`] when nothing is named so, [`Kind::Usage`] when several things are.
pub fn find<T: Named>(
    things: Vec<T>,
    given: &str,
    kind: &str,
    list_command: &str,
) -> Result<T, CliError> {
    let mut found: Vec<T> = Vec::new();
    for thing in things {
        if thing.name() == given {
            return Ok(thing);
        }
        if begins(thing.name(), given) {
            found.push(thing);
        }
    }
    match (found.pop(), found.len()) {
        (Some(thing), 0) => Ok(thing),
        (Some(_), others) => Err(CliError::new(
            Kind::Usage,
            format!("{given:?} is the beginning of {} {kind}s", others + 1),
        )
        .hint(format!("give more of the id; `{list_command}` lists them"))),
        (None, _) => Err(CliError::failure(format!("there is no {kind} {given:?}"))
            .code("not_found")
            .hint(format!("run `{list_command}`"))),
    }
}

fn begins(name: &str, given: &str) -> bool {
    let bare = name.split_once('_').map_or(name, |(_, rest)| rest);
    !given.is_empty()
        && (name.starts_with(given) && given.len() > name.len() - bare.len()
            || bare.starts_with(given))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(&'static str);

    impl Named for Thing {
        fn name(&self) -> &str {
            self.0
        }
    }

    fn things() -> Vec<Thing> {
        ["ses_xyz", "gr_abc", "gr_abd", "gr_ab"].map(Thing).into()
    }

    #[test]
    fn unique_beginnings_name_one_thing() {
        for (given, id) in
            [("gr_abc", "gr_abc"), ("abd", "gr_abd"), ("ses_x", "ses_xyz"), ("gr_ab", "gr_ab")]
        {
            assert_eq!(find(things(), given, "grant", "x").ok().unwrap().0, id, "{given}");
        }
    }

    #[test]
    fn doubtful_names_are_refused() {
        for (given, kind) in [
            ("a", Kind::Usage),
            ("gr_a", Kind::Usage),
            ("gr_", Kind::Failure),
            ("", Kind::Failure),
            ("zzz", Kind::Failure),
        ] {
            assert_eq!(find(things(), given, "grant", "x").err().unwrap().kind(), kind, "{given}");
        }
    }
}
