//! The bench's MCP server on standard input and output: started by the gateway, or by this program
//! for the direct way. Says in a file how many tools it was asked for when its input ends.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::answers::{Answer, Answers};

/// Its first argument; the second is the folder for counts.
pub const ARGUMENT: &str = "child";

pub fn main(counts: &Path) {
    let answers = Answers::default();
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let answer = match answers.to(line.as_bytes(), 0).0 {
            Answer::Nothing => continue,
            Answer::Session(text) | Answer::Message(text) | Answer::Event(text) => text,
            Answer::Unknown => panic!("not for a child: {line}"),
        };
        // Who has gone needs no answer; the count still has to be left.
        let sent = output.write_all(answer.as_bytes()).and_then(|()| output.write_all(b"\n"));
        if sent.and_then(|()| output.flush()).is_err() {
            break;
        }
    }
    let count = counts.join(std::process::id().to_string());
    std::fs::write(count, answers.calls.get().to_string()).expect("a count");
}

/// What all children that have ended answered.
pub fn counted(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).expect("the folder of counts");
    files
        .map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("a count"))
        .map(|count| count.parse::<u64>().expect("a number"))
        .sum()
}

/// A child of this program's own.
pub struct Pipe {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Pipe {
    pub fn start(counts: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program's file"))
            .arg(ARGUMENT)
            .arg(counts)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, input, output }
    }

    pub async fn send(&mut self, mut message: String) {
        message.push('\n');
        let input = self.input.as_mut().expect("still open");
        input.write_all(message.as_bytes()).await.expect("it reads");
    }

    pub async fn receive(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).await.expect("text");
        line.truncate(line.trim_end().len());
        line
    }

    pub async fn close(mut self) {
        drop(self.input.take());
        self.child.wait().await.expect("its end");
    }
}
