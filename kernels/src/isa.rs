//! CPU generations: the levels that a variant can be written for.

use std::fmt;
use std::str::FromStr;

/// The environment variable that forces a lower level than the CPU offers, for example `RYZANSTEIN_ISA=avx2`.
pub const ENVIRONMENT: &str = "RYZANSTEIN_ISA";

/// A CPU generation. Levels are ordered: each includes everything below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust for any architecture: the specification.
    Scalar,
    /// x86-64-v3: AVX2, FMA, F16C, BMI1/2, LZCNT, MOVBE (Haswell, Zen 1 and later).
    Avx2,
    /// AVX-512 F, BW, DQ, VL, VNNI, VBMI (Ice Lake, Zen 4 and later).
    Avx512,
}

/// Why a level cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsaError {
    /// The name is not one of a level.
    Unknown(String),
    /// The level exists, but this CPU lacks it.
    Unsupported {
        /// The level asked for.
        wanted: Isa,
        /// The best level that this CPU has.
        best: Isa,
    },
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IsaError::Unknown(name) => {
                write!(f, "unknown ISA level '{name}': expected one of scalar, avx2, avx512")
            }
            IsaError::Unsupported { wanted, best } => {
                write!(f, "this CPU has no {wanted}: its best level is {best}")
            }
        }
    }
}

impl std::error::Error for IsaError {}

impl Isa {
    /// Every level, lowest first.
    pub const ALL: [Isa; 3] = [Isa::Scalar, Isa::Avx2, Isa::Avx512];

    /// The level's name, as it stands after the `@` of a variant's name.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// Whether this CPU (and its operating system) has every feature of the level.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("lzcnt")
                    && is_x86_feature_detected!("movbe")
            }
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("avx512vbmi")
            }
            #[cfg(not(all(target_arch = "x86_64", not(miri))))]
            _ => false,
        }
    }

    /// The levels that this CPU has, lowest first; never empty.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// The best level that this CPU has.
    pub fn best() -> Isa {
        Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Scalar)
    }

    /// The level that `RYZANSTEIN_ISA` names, or the best one where it is not set.
    ///
    /// # Errors
    /// An unknown name, or a level that this CPU lacks.
    pub fn from_environment() -> Result<Isa, IsaError> {
        match std::env::var(ENVIRONMENT) {
            Ok(name) => name.parse::<Isa>()?.require(),
            Err(_) => Ok(Isa::best()),
        }
    }

    /// The level itself if this CPU has it.
    ///
    /// # Errors
    /// [`IsaError::Unsupported`] where it has not.
    pub fn require(self) -> Result<Isa, IsaError> {
        if self.is_available() { Ok(self) } else { Err(IsaError::Unsupported { wanted: self, best: Isa::best() }) }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Isa, IsaError> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| IsaError::Unknown(name.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_levels_are_cumulative() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        assert!("sse9".parse::<Isa>().unwrap_err().to_string().contains("sse9"));
        let available = Isa::available();
        assert_eq!(available, Isa::ALL[..available.len()], "a level without the ones below it");
        assert_eq!(available.last(), Some(&Isa::best()));
    }
}
