//! Runs stories two at a time and reports each as passed, failed or skipped.
//!
//! The standard harness knows no "skipped": a test that cannot run there passes silently. Here it
//! is named with its reason and counted. The last line is always `N passed, N failed, N skipped`.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use super::parts::Parts;
use super::world::World;

/// One story: a name and what happens in it.
pub struct Story {
    /// What is promised, as `snake_case`.
    pub name: &'static str,
    /// The story; an `Err` or a panic fails it, a [`Skip`] skips it.
    pub run: fn(&World) -> anyhow::Result<()>,
}

/// Makes a module's list of stories from its functions.
#[macro_export]
macro_rules! stories {
    ($($name:ident),* $(,)?) => {
        pub const STORIES: &[$crate::support::Story] =
            &[$($crate::support::Story { name: stringify!($name), run: $name }),*];
    };
}

/// Why a story could not be told on this machine.
#[derive(Debug)]
pub struct Skip(pub String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

struct Options {
    list: bool,
    exact: bool,
    threads: usize,
    filters: Vec<String>,
    skips: Vec<String>,
}

/// Parses the arguments of the standard harness as far as they mean something here, so that
/// `cargo test NAME` and `cargo test -- --exact NAME` work on all test binaries at once.
fn options() -> Options {
    let mut options =
        Options { list: false, exact: false, threads: 2, filters: vec![], skips: vec![] };
    if let Some(threads) = std::env::var("RUST_TEST_THREADS").ok().and_then(|n| n.parse().ok()) {
        options.threads = threads;
    }
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--list" => options.list = true,
            "--exact" => options.exact = true,
            "--skip" => options.skips.extend(arguments.next()),
            "--test-threads" => {
                let number = arguments.next().and_then(|n| n.parse().ok());
                options.threads = number.unwrap_or(options.threads);
            }
            "--format" | "--color" | "--logfile" => drop(arguments.next()),
            flag if flag.starts_with('-') => {
                if let Some(number) = flag.strip_prefix("--test-threads=") {
                    options.threads = number.parse().unwrap_or(options.threads);
                }
            }
            filter => options.filters.push(filter.to_owned()),
        }
    }
    options
}

/// Runs the stories that the arguments ask for.
pub fn run(modules: &[(&str, &[Story])]) -> ExitCode {
    let options = options();
    let matches = |name: &str, filter: &String| {
        if options.exact { name == filter } else { name.contains(filter.as_str()) }
    };
    let stories: VecDeque<(String, &Story)> = modules
        .iter()
        .flat_map(|(module, stories)| {
            stories.iter().map(move |story| (format!("{module}::{}", story.name), story))
        })
        .filter(|(name, _)| {
            (options.filters.is_empty() || options.filters.iter().any(|one| matches(name, one)))
                && !options.skips.iter().any(|one| matches(name, one))
        })
        .collect();
    if options.list {
        for (name, _) in &stories {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    super::proc::kill_all_on_interrupt();
    // Panics are told with their story, not in between.
    let panics = &Mutex::new(String::new());
    std::panic::set_hook(Box::new(|panic| {
        LAST_PANIC.with_borrow_mut(|last| *last = panic.to_string());
    }));
    let parts = if stories.is_empty() { Parts::default() } else { Parts::install() };
    let total = stories.len();
    println!("\nrunning {total} stories");
    let queue = Mutex::new(stories);
    let counts = Mutex::new([0usize; 3]);
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().pop_front();
                    let Some((name, story)) = next else { break };
                    let started = Instant::now();
                    let outcome = tell(&name, story, &parts);
                    let took = started.elapsed().as_secs_f32();
                    let mut counts = counts.lock().unwrap();
                    match outcome {
                        Outcome::Passed => {
                            counts[0] += 1;
                            println!("test {name} ... ok ({took:.1} s)");
                        }
                        Outcome::Failed(why) => {
                            counts[1] += 1;
                            println!("test {name} ... FAILED ({took:.1} s)");
                            let mut all = panics.lock().unwrap();
                            writeln!(all, "\n---- {name} ----\n{why}").unwrap();
                        }
                        Outcome::Skipped(why) => {
                            counts[2] += 1;
                            println!("test {name} ... SKIPPED: {why}");
                        }
                    }
                }
            });
        }
    });
    print!("{}", panics.lock().unwrap());
    let [passed, failed, skipped] = *counts.lock().unwrap();
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

thread_local! {
    static LAST_PANIC: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

fn tell(name: &str, story: &Story, parts: &Parts) -> Outcome {
    let world = match World::new(name, parts) {
        Ok(world) => world,
        Err(error) => return Outcome::Failed(format!("{error:?}")),
    };
    let why = match catch_unwind(AssertUnwindSafe(|| (story.run)(&world))) {
        Ok(Ok(())) => {
            world.remove();
            return Outcome::Passed;
        }
        Ok(Err(error)) => match error.downcast::<Skip>() {
            Ok(skip) => {
                world.remove();
                return Outcome::Skipped(skip.0);
            }
            Err(error) => format!("{error:?}"),
        },
        Err(_panic) => LAST_PANIC.take(),
    };
    Outcome::Failed(format!("{why}\n{}", logs(world.dir())))
}

/// The end of what every process of a story printed. The files stay for a closer look.
fn logs(dir: &Path) -> String {
    const LINES: usize = 30;
    let mut shown = format!("(everything is in {})", dir.display());
    let mut files: Vec<_> = std::fs::read_dir(dir.join("logs"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    for file in files {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap_or_default()).into_owned();
        if text.trim().is_empty() {
            continue;
        }
        let lines: Vec<_> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n");
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        write!(shown, "\n-- {name}\n{tail}").unwrap();
    }
    shown
}
