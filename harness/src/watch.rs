//! Keeping time of forward passes: when each thread began, finished and left each step.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Result;
use engines::{Step, Watch};
use serde_json::json;

/// A thread's share of a step, in nanoseconds from the recorder's start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The step.
    pub step: Step,
    /// When the thread began its share.
    pub begin: u64,
    /// When it had done it.
    pub done: u64,
    /// When the others had done theirs.
    pub left: u64,
}

/// Writes down every step of every thread.
pub struct Recorder {
    start: Instant,
    threads: Vec<Mutex<Vec<Span>>>,
}

/// Spans that a thread has room for without growing its list: about a hundred tokens of a model of thirty layers.
const ROOM: usize = 1 << 15;

impl Recorder {
    /// For so many threads.
    pub fn new(threads: usize) -> Recorder {
        let threads = (0..threads).map(|_| Mutex::new(Vec::with_capacity(ROOM))).collect();
        Recorder { start: Instant::now(), threads }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn spans(&self, thread: usize) -> MutexGuard<'_, Vec<Span>> {
        self.threads[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was written down since the last time, by thread.
    pub fn take(&self) -> Vec<Vec<Span>> {
        (0..self.threads.len())
            .map(|thread| std::mem::replace(&mut *self.spans(thread), Vec::with_capacity(ROOM)))
            .collect()
    }
}

impl Watch for Recorder {
    fn begin(&self, thread: usize, step: Step) {
        let begin = self.now();
        self.spans(thread).push(Span { step, begin, done: begin, left: begin });
    }

    fn done(&self, thread: usize) {
        let now = self.now();
        if let Some(span) = self.spans(thread).last_mut() {
            (span.done, span.left) = (now, now);
        }
    }

    fn left(&self, thread: usize) {
        let now = self.now();
        if let Some(span) = self.spans(thread).last_mut() {
            span.left = now;
        }
    }
}

/// Writes spans in the trace event format that chrome://tracing and Perfetto read: a line for each thread, work and waiting
/// in turn.
///
/// # Errors
/// What `out` refuses.
pub fn write_trace(mut out: impl Write, title: &str, threads: &[Vec<Span>]) -> Result<()> {
    write!(out, "{{\"displayTimeUnit\":\"ms\",\"otherData\":{},\"traceEvents\":[", json!({ "title": title }))?;
    let start = threads.iter().flatten().map(|span| span.begin).min().unwrap_or(0);
    let us = |ns: u64| ns as f64 / 1e3;
    let mut separator = "";
    for (thread, spans) in threads.iter().enumerate() {
        let name = json!({ "name": "thread_name", "ph": "M", "pid": 1, "tid": thread,
            "args": { "name": format!("thread {thread}") } });
        write!(out, "{separator}\n{name}")?;
        separator = ",";
        for Span { step, begin, done, left } in spans {
            let event = |name: &str, from: u64, to: u64| {
                json!({ "name": name, "cat": step.kind.name(), "ph": "X", "pid": 1, "tid": thread, "ts": us(from - start),
                    "dur": us(to - from), "args": { "layer": step.layer } })
            };
            write!(out, ",\n{}", event(step.kind.name(), *begin, *done))?;
            if left > done {
                write!(out, ",\n{}", event("waiting", *done, *left))?;
            }
        }
    }
    writeln!(out, "\n]}}")?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use engines::StepKind;

    #[test]
    fn a_trace_is_json_with_work_and_waiting_of_every_thread() {
        let recorder = Recorder::new(2);
        let step = Step { kind: StepKind::Head, layer: None };
        for thread in [0, 1] {
            recorder.begin(thread, step);
            recorder.done(thread);
            std::thread::sleep(std::time::Duration::from_millis(1));
            recorder.left(thread);
        }
        let spans = recorder.take();
        assert!(spans.iter().all(|spans| spans.len() == 1 && spans[0].left > spans[0].done));
        assert!(recorder.take().iter().all(Vec::is_empty));
        let mut out = Vec::new();
        write_trace(&mut out, "a \"title\"", &spans).unwrap();
        let trace: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        assert_eq!(events.len(), 6);
        let waiting = events.iter().find(|event| event["name"] == "waiting" && event["tid"] == 1).unwrap();
        assert!(waiting["dur"].as_f64().unwrap() >= 1000.0 && waiting["cat"] == "head");
    }
}
