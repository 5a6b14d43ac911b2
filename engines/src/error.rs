//! What can go wrong, each as one sentence that says where, what was expected and what was found.

use std::path::PathBuf;

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a model cannot be loaded or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read at all.
    #[error("cannot read {}: {reason}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// A file can be read but is not what its place asks for.
    #[error("{file}: {problem}")]
    Format {
        /// The file.
        file: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// A tensor is missing, has the wrong shape or type, or holds numbers that cannot be used.
    #[error("{file}: tensor {tensor}: {problem}")]
    Tensor {
        /// The file, or the folder where the tensor was looked for.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// The name of a model is not a folder, a file or a known synthetic shape.
    #[error("{0}")]
    Spec(String),
    /// A level of instructions or a number of threads that cannot be had.
    #[error("{0}")]
    Cpu(String),
    /// More memory is needed than there is.
    #[error("{what} needs {needed} bytes of memory but {available} are available")]
    Memory {
        /// What the memory is for.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes available.
        available: u64,
    },
    /// A token outside the vocabulary.
    #[error("token {token} is outside the vocabulary of {vocab}")]
    Token {
        /// The token.
        token: u32,
        /// V.
        vocab: usize,
    },
    /// A segment without tokens.
    #[error("segment {segment} of the batch has no tokens: at least 1 is needed")]
    Empty {
        /// Index of the segment.
        segment: usize,
    },
    /// More positions than the model can tell apart.
    #[error("{needed} positions are needed but the model's context holds {context}")]
    Context {
        /// Positions after the call.
        needed: usize,
        /// The model's limit.
        context: usize,
    },
    /// A rewind to a place that the state has not reached.
    #[error("cannot rewind to {wanted} tokens: the state has read {len}")]
    Rewind {
        /// Where to.
        wanted: usize,
        /// Tokens read so far.
        len: usize,
    },
    /// A rewind to a place that a recurrent state no longer remembers.
    #[error(
        "cannot rewind to {wanted} of {len} tokens: the state remembers {oldest} and later; start it with a larger keep"
    )]
    Forgotten {
        /// Where to.
        wanted: usize,
        /// The earliest length that is remembered, beside 0.
        oldest: usize,
        /// Tokens read so far.
        len: usize,
    },
    /// A state that another kind of model made.
    #[error("the state holds {found} but the model needs {expected}")]
    State {
        /// The model's layers, heads and format.
        expected: String,
        /// The state's.
        found: String,
    },
    /// Inputs of the wrong size, or a block that does not exist.
    #[error("{0}")]
    Input(String),
    /// Logits that nothing can be chosen from, or settings of the sampler that make no sense.
    #[error("{0}")]
    Sample(String),
    /// Text that cannot be encoded, or a tokenizer that cannot do what is asked.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A thread stopped in the middle of a parallel region: a defect of this program.
    #[error("a thread failed inside a parallel region: {0}")]
    Thread(String),
}

impl Error {
    pub(crate) fn read(path: impl Into<PathBuf>, reason: impl ToString) -> Error {
        Error::Read { path: path.into(), reason: reason.to_string() }
    }

    pub(crate) fn format(file: impl ToString, problem: impl ToString) -> Error {
        Error::Format { file: file.to_string(), problem: problem.to_string() }
    }

    pub(crate) fn tensor(file: impl ToString, tensor: impl ToString, problem: impl ToString) -> Error {
        Error::Tensor { file: file.to_string(), tensor: tensor.to_string(), problem: problem.to_string() }
    }
}
