//! Runs a program with bounds on its time and on what it prints.

use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// More than this on standard output is not an answer.
const MOST_BYTES: usize = 1 << 20;

/// So much of the end of standard error is kept, to be told when the program fails.
const LAST_BYTES: usize = 4 << 10;

/// How much of what a program printed an error quotes, in characters.
const QUOTED: usize = 160;

/// How often it is looked whether a program has ended that no longer prints.
const LOOK: Duration = Duration::from_millis(5);

/// What a program that ended well left behind.
pub(super) struct Output {
    /// Its standard output.
    pub(super) text: String,
    /// The last of its standard error.
    complaint: String,
    /// How long it ran, loading and all.
    pub(super) seconds: f64,
}

impl Output {
    /// The beginning of what it printed, for an error.
    pub(super) fn shown(&self) -> String {
        let begin: String = self.text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(QUOTED).collect();
        match (begin.is_empty(), self.complaint.is_empty()) {
            (false, _) => format!("'{begin}'"),
            (true, false) => format!("nothing but this on standard error: '{}'", self.complaint),
            (true, true) => "nothing".to_string(),
        }
    }
}

/// The command as one would type it.
pub(super) fn line(program: &Path, arguments: &[OsString]) -> String {
    let words = arguments.iter().map(|argument| argument.to_string_lossy());
    std::iter::once(program.to_string_lossy()).chain(words).collect::<Vec<_>>().join(" ")
}

/// Runs a program to its end, which must come within `limit`; after that it is killed. What it started in its turn is
/// not.
pub(super) fn run(program: &Path, arguments: &[OsString], limit: Duration) -> Result<Output> {
    let clock = Instant::now();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot be started")?;
    let printed = reading(child.stdout.take(), first);
    let complaint = reading(child.stderr.take(), last);
    // Nobody looks at a clock while it works: the end of its output wakes this thread.
    let text = printed.recv_timeout(limit).unwrap_or_default();
    let status = ended(&mut child, clock, limit)?;
    let seconds = clock.elapsed().as_secs_f64();
    let complaint = complaint.recv_timeout(LOOK * 20).unwrap_or_default();
    let complaint = one_line(&complaint);
    let Some(status) = status else {
        bail!("did not end within {} s and was killed", limit.as_secs_f64());
    };
    if text.len() > MOST_BYTES {
        bail!("printed more than {MOST_BYTES} bytes");
    }
    if !status.success() {
        let said = if complaint.is_empty() { "nothing".to_string() } else { format!("'{complaint}'") };
        bail!("ended with {status}; the last it said is {said}");
    }
    Ok(Output { text: String::from_utf8_lossy(&text).into_owned(), complaint, seconds })
}

/// How the program ended; none if it had to be killed.
fn ended(child: &mut Child, clock: Instant, limit: Duration) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait().context("cannot be waited for")? {
            return Ok(Some(status));
        }
        if clock.elapsed() >= limit {
            child.kill().context("cannot be killed")?;
            child.wait().context("cannot be waited for")?;
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
}

/// Reads a stream on a thread of its own, so that neither stream can fill up and stop the program.
fn reading<R: Read + Send + 'static>(stream: Option<R>, keep: fn(R) -> Vec<u8>) -> Receiver<Vec<u8>> {
    let (send, receive) = channel();
    if let Some(stream) = stream {
        // Whoever waits may have given up: then nobody wants to know.
        thread::spawn(move || drop(send.send(keep(stream))));
    }
    receive
}

/// The first bytes of a stream, one more than are wanted if there are more; then it is closed, which ends most
/// programs.
fn first(stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was read before an error is all there is.
    let _ = stream.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes);
    bytes
}

/// The last bytes of a stream.
fn last(mut stream: impl Read) -> Vec<u8> {
    let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return kept,
            Ok(count) => {
                kept.extend_from_slice(&piece[..count]);
                kept.drain(..kept.len().saturating_sub(LAST_BYTES));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return kept,
        }
    }
}

/// The last line that says something, cut to what an error quotes.
fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(QUOTED).collect()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str, seconds: f64) -> Result<Output> {
        run(Path::new("/bin/sh"), &["-c".into(), script.into()], Duration::from_secs_f64(seconds))
    }

    fn failure(script: &str, seconds: f64) -> String {
        format!("{:#}", shell(script, seconds).err().unwrap())
    }

    #[test]
    fn what_a_program_prints_comes_back() {
        let output = shell("echo answer; echo remark >&2", 10.0).unwrap();
        assert_eq!((output.text.as_str(), output.complaint.as_str()), ("answer\n", "remark"));
        assert!(output.seconds > 0.0 && output.shown() == "'answer'");
        assert!(shell("echo remark >&2", 10.0).unwrap().shown().contains("standard error: 'remark'"));
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let told = failure("echo one >&2; echo two >&2; exit 3", 10.0);
        assert!(told.contains("exit status: 3") && told.contains("'two'"), "{told}");
        assert!(failure("exit 1", 10.0).contains("the last it said is nothing"));
        let absent = run(Path::new("/no/such/program"), &[], LOOK).err().unwrap();
        assert!(format!("{absent:#}").contains("cannot be started"), "{absent:#}");
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let clock = Instant::now();
        assert!(failure("exec sleep 60", 0.2).contains("did not end within 0.2 s and was killed"));
        // Standard output closed, and standard output held open by a child that lives on.
        assert!(failure("exec >&-; exec sleep 60", 0.2).contains("killed"));
        assert!(failure("sleep 3 & exec sleep 60", 0.2).contains("killed"));
        assert!(clock.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_program_that_prints_without_end_is_stopped() {
        let told = failure("yes; exit 0", 20.0);
        assert!(told.contains("printed more than 1048576 bytes"), "{told}");
        // Standard error may be as long as it likes: only its end is kept.
        let output =
            shell("head -c 3000000 /dev/zero | tr '\\0' 'x' >&2; echo >&2; echo end >&2; echo fine", 20.0).unwrap();
        assert_eq!((output.text.as_str(), output.complaint.as_str()), ("fine\n", "end"));
    }
}
