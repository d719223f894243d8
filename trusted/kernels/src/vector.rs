//! Softmax of one vector.

/// `exp(x - max) / sum`, in place. Of nothing, nothing.
pub fn softmax(values: &mut [f32]) {
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0_f64;
    for value in &mut *values {
        *value = (*value - max).exp();
        sum += f64::from(*value);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounded to the answer's precision"
    )]
    let share = (1.0 / sum) as f32;
    for value in values {
        *value *= share;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_whatever_the_size() {
        let mut values = [1000.0, 1001.0, 999.0, -1e30];
        softmax(&mut values);
        assert!((values.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((values[1] / values[0] - std::f32::consts::E).abs() < 1e-5);
        assert!(values[3] == 0.0);
        softmax(&mut []);
    }
}
