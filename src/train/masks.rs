//! What training drops out: rates from a configuration, random numbers by step and site.

use crate::config::DropoutRates;
use crate::ops::DropoutSite;
use crate::random::{Dropout, Random};

/// The dropout masks of one step. None is stored: each is drawn where it is needed, in the forward and again in the backward pass.
#[derive(Clone, Copy, Debug)]
pub struct Masks {
    rates: DropoutRates,
    random: Random,
    step: u32,
    /// How often sites were passed before: what runs twice in a step draws twice.
    pub(super) pass: u32,
}

impl Masks {
    /// Those of a step.
    pub fn new(rates: DropoutRates, random: Random, step: u32) -> Masks {
        Masks { rates, random, step, pass: 0 }
    }

    /// Nothing is dropped.
    pub fn none() -> Masks {
        Masks::new(DropoutRates::NONE, Random::new(0), 0)
    }

    /// The same step, of which sites draw other numbers.
    pub fn of_pass(self, pass: u32) -> Masks {
        Masks { pass, ..self }
    }

    /// The dropout of a site; `None` if its rate is 0.
    pub fn at(&self, site: DropoutSite) -> Option<Dropout> {
        let dropout = self.draw(site);
        (dropout.rate() > 0.0).then_some(dropout)
    }

    /// The dropout of a site, whatever its rate.
    pub fn draw(&self, site: DropoutSite) -> Dropout {
        Dropout::new(self.random.stream(self.step, self.pass << 24 | site.number()), self.rate(site))
    }

    /// Whether rows stay or go as a whole.
    pub fn is_of_rows(&self, site: DropoutSite) -> bool {
        self.rates.uid_whole && matches!(site, DropoutSite::Uid { .. })
    }

    fn rate(&self, site: DropoutSite) -> f32 {
        let rates = &self.rates;
        match site {
            DropoutSite::Input => rates.input,
            DropoutSite::HstuLinear { .. } => rates.hstu_linear,
            DropoutSite::Attention { .. } => rates.attention,
            DropoutSite::AttentionOutput { .. }
            | DropoutSite::FeedForwardHidden { .. }
            | DropoutSite::FeedForwardOutput { .. } => rates.feed_forward,
            DropoutSite::Query => rates.query,
            DropoutSite::Item => rates.item,
            DropoutSite::Uid { .. } => rates.uid,
            DropoutSite::GateItem => rates.gate_item,
            DropoutSite::GateCross => rates.gate_cross,
            DropoutSite::GateSoftmax => rates.gate_softmax,
        }
    }
}
