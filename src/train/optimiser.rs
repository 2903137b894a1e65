//! Weights in training, and the factors of a step of AdamW.

use crate::backend::{AdamW, TrainingOps};
use crate::config::TrainConfig;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// A tensor that is trained.
pub(super) struct TrainedParameter<F> {
    pub values: F,
    pub first_moment: F,
    pub second_moment: F,
}

impl<F> TrainedParameter<F> {
    /// On a device, with these moments; without any, they are zero.
    pub fn new<B: TrainingOps<Floats = F>>(
        ops: &mut B,
        values: &Tensor,
        moments: Option<(&Tensor, &Tensor)>,
    ) -> TrainedParameter<F> {
        let mut moment = |tensor: Option<&Tensor>| match tensor {
            Some(tensor) => ops.floats(tensor),
            None => ops.zeros(values.data().len()),
        };
        let (first_moment, second_moment) = (moment(moments.map(|m| m.0)), moment(moments.map(|m| m.1)));
        TrainedParameter { values: ops.floats(values), first_moment, second_moment }
    }
}

/// The norm of all gradients together; `diverged` says what is wrong if that of a number is not finite.
pub(super) fn gradient_norm<B: TrainingOps>(
    ops: &mut B,
    gradients: &[Option<B::Floats>],
    diverged: impl FnOnce(Option<usize>) -> Error,
) -> Result<f64> {
    let present: Vec<&B::Floats> = gradients.iter().flatten().collect();
    let squares = ops.sums_of_squares(&present)?;
    match squares.iter().position(|sum| !sum.is_finite()) {
        None => Ok(squares.iter().sum::<f64>().sqrt()),
        Some(place) => {
            let mut numbers = gradients.iter().enumerate().filter(|(_, gradient)| gradient.is_some());
            Err(diverged(numbers.nth(place).map(|(number, _)| number)))
        }
    }
}

/// The factors of step number `step`, from 1.
pub(super) fn adamw(config: &TrainConfig, step: u64, gradient_norm: f64) -> AdamW {
    let TrainConfig { learning_rate, weight_decay, warmup_steps, max_gradient_norm, .. } = *config;
    let warm_up = if warmup_steps == 0 { 1.0 } else { (step as f64 / warmup_steps as f64).min(1.0) };
    // As torch.nn.utils.clip_grad_norm_ has it.
    let scale = max_gradient_norm.map_or(1.0, |most| (f64::from(most) / (gradient_norm + 1e-6)).min(1.0));
    AdamW {
        step,
        learning_rate: (f64::from(learning_rate) * warm_up) as f32,
        weight_decay,
        gradient_scale: scale as f32,
    }
}
