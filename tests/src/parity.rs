//! Pass marks: how far an f32 engine may be from its oracle, and why.
//!
//! A float model is continuous: f32 and f64 agree to 4e-6 .. 6e-5 in logits of standard deviation 2.5. A model with int8
//! activations is not: two right programs agree as closely until one activation lies so near a half that it gets another
//! code; from there on logits differ by up to 0.3. So such a model is held to its oracle layer by layer, where one code
//! moves little; on prompts without a changed code; and by the share of such prompts among unselected ones.

use crate::golden::{argmax, largest_difference};
use ndarray::{Array2, Axis};

/// Largest difference of logits of a float model, for logits of standard deviation 2.5.
pub const FLOAT: f64 = 2e-4;
/// Below this logits differ by rounding alone; a changed activation code moves them further.
pub const CLEAN: f64 = 1e-3;
/// The most that changed codes may move a logit.
pub const CHANGED: f64 = 0.5;
/// Where the best logit leads by less, a changed code may make another one best.
pub const GAP: f64 = 0.25;

/// The standard deviation of all elements.
pub fn deviation(x: &Array2<f64>) -> f64 {
    x.std(0.0)
}

/// Logits of a float model.
///
/// # Errors
/// A sentence with the difference and the limit.
pub fn float_logits(found: &Array2<f64>, expected: &Array2<f64>) -> Result<f64, String> {
    let (difference, limit) = (largest_difference(found, expected), FLOAT * deviation(expected) / 2.5);
    if difference <= limit {
        Ok(difference)
    } else {
        Err(format!("logits differ by {difference:.2e}, above {limit:.2e}"))
    }
}

/// Logits of a quantised model on a prompt that may hold a changed code: bounded everywhere, and the best token may
/// differ only where it leads by little.
///
/// # Errors
/// A sentence with the difference and the limit.
pub fn quantised_logits(found: &Array2<f64>, expected: &Array2<f64>) -> Result<f64, String> {
    let (difference, limit) = (largest_difference(found, expected), CHANGED * deviation(expected) / 2.5);
    if difference > limit {
        return Err(format!("logits differ by {difference:.2e}, above {limit:.2e}"));
    }
    for (position, (found, expected)) in found.outer_iter().zip(expected.outer_iter()).enumerate() {
        let ((a, _), (b, gap)) = (argmax(found), argmax(expected));
        if a != b && gap >= GAP {
            return Err(format!("best token at position {position} is {a}, not {b}, which leads by {gap:.3}"));
        }
    }
    Ok(difference)
}

/// How far one block is from its oracle on the same inputs x: the share of positions that differ by more than 1e-4, and
/// the largest difference, both in units of the standard deviation of what the block adds to x. A block that adds less
/// than a hundredth of x, as some of a small trained model do, is measured by that hundredth: the sum with x is rounded.
pub fn block_distance(input: &Array2<f64>, found: &Array2<f64>, expected: &Array2<f64>) -> (f64, f64) {
    let unit = deviation(&(expected - input)).max(deviation(input) / 100.0);
    let by_position = ((found - expected) / unit).map_axis(Axis(1), |row| row.fold(0.0f64, |max, x| max.max(x.abs())));
    let worst = by_position.fold(0.0f64, |max, x| if x.is_finite() { max.max(*x) } else { f64::INFINITY });
    (by_position.iter().filter(|x| **x > 1e-4).count() as f64 / by_position.len() as f64, worst)
}

/// The most that changed codes may move one number of a block's output, in units of the deviation of what the block adds.
pub const BLOCK_CHANGED: f64 = 0.25;

/// One quantised block on golden inputs: at least 90 % of positions within 1e-4, none above [`BLOCK_CHANGED`].
///
/// # Errors
/// A sentence with the share and the difference.
pub fn quantised_block(input: &Array2<f64>, found: &Array2<f64>, expected: &Array2<f64>) -> Result<(f64, f64), String> {
    let (share, worst) = block_distance(input, found, expected);
    if share <= 0.1 && worst <= BLOCK_CHANGED {
        Ok((share, worst))
    } else {
        Err(format!("{:.1} % of positions above 1e-4, the largest {worst:.2e}", 100.0 * share))
    }
}

/// One float block on the same inputs: within 2e-5 of the standard deviation of what the block adds.
///
/// # Errors
/// A sentence with the difference.
pub fn float_block(input: &Array2<f64>, found: &Array2<f64>, expected: &Array2<f64>) -> Result<(f64, f64), String> {
    let (_, worst) = block_distance(input, found, expected);
    if worst <= 2e-5 { Ok((0.0, worst)) } else { Err(format!("a difference of {worst:.2e} of the block's change")) }
}

/// The most that one number of a random recurrent model's block may differ, in units of the deviation of what the block
/// adds. More than of a transformer's: at the first token the norm of each head divides by what may be next to nothing. A
/// change of the last bit of every weight moves such a block by up to 1.4e-5, most by 2e-6.
pub const RECURRENT_BLOCK: f64 = 1e-4;

/// The chance of at most `hits` in `trials` when each has chance `p`: how surprising so few are.
pub fn binomial_tail(hits: usize, trials: usize, p: f64) -> f64 {
    let mut term = (1.0 - p).powi(trials as i32);
    let mut sum = term;
    for k in 0..hits {
        term *= (trials - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
        sum += term;
    }
    sum
}
