//! A policy with the pool that it is given, as one argument: `ect-g:endpoints=8,models=4,ttl=60`.

use std::str::FromStr;
use std::time::Duration;

use fnpacker::config::PolicyName;
use fnpacker::packing::{Limits, Policy};

/// Why a text names no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePolicyError {
    #[error("there is no policy '{0}'; there are {names}", names = PolicyName::ALL.map(PolicyName::name).join(", "))]
    Name(String),
    #[error("'{0}' is not one of endpoints=N, models=N, ttl=SECONDS, instances=N")]
    Parameter(String),
}

/// A policy, and the pool for it.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicySpec {
    pub text: String,
    pub name: PolicyName,
    /// Functions in the pool.
    pub endpoints: usize,
    /// Models resident in one instance.
    pub models: usize,
    /// How long the platform keeps an idle instance.
    pub ttl: Duration,
    /// Instances that the platform's memory holds.
    pub instances: usize,
    /// Seconds of waiting that a GB-second is worth.
    pub price: f64,
}

impl PolicySpec {
    /// The policy with what is usual for it.
    #[must_use]
    pub fn new(name: PolicyName) -> Self {
        let steers = matches!(name, PolicyName::ChBl | PolicyName::EctG | PolicyName::EctP);
        Self {
            text: name.name().to_owned(),
            name,
            endpoints: match name {
                PolicyName::OneToOne => 4096,
                PolicyName::ChBl | PolicyName::EctG => 8,
                PolicyName::EctP => 16,
                _ => 5,
            },
            models: if steers { 4 } else { 1 },
            ttl: Duration::from_secs(60),
            instances: 16,
            price: 0.05,
        }
    }

    /// Writes down its own parameters.
    #[must_use]
    pub fn named(mut self) -> Self {
        self.text = format!(
            "{}:endpoints={},models={},ttl={}",
            self.name.name(),
            self.endpoints,
            self.models,
            self.ttl.as_secs()
        );
        if self.name == PolicyName::EctP {
            self.text.push_str(&format!(",price={}", self.price));
        }
        self
    }

    /// A fresh policy.
    #[must_use]
    pub fn policy(&self, rent: f64) -> Box<dyn Policy> {
        self.name.policy(rent)
    }

    /// Bounds that do not bind: the comparison is of policies, not of queue lengths.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            queue: 1_000_000,
            queue_per_user: 1_000_000,
            in_flight: 1_000_000,
            models: 4_000_000,
            capacity: 1,
            models_per_instance: self.models,
            keep_alive: self.ttl,
            frees_memory: true,
        }
    }
}

impl FromStr for PolicySpec {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        let (name, parameters) = text.split_once(':').unwrap_or((text, ""));
        let named = PolicyName::ALL
            .into_iter()
            .find(|policy| policy.name() == name);
        let name = named.ok_or_else(|| ParsePolicyError::Name(name.to_owned()))?;
        let mut spec = Self::new(name);
        spec.text = text.to_owned();
        for parameter in parameters
            .split(',')
            .filter(|parameter| !parameter.is_empty())
        {
            let wrong = || ParsePolicyError::Parameter(parameter.to_owned());
            let (key, value) = parameter.split_once('=').ok_or_else(wrong)?;
            if key == "price" {
                spec.price = value.parse().map_err(|_| wrong())?;
                continue;
            }
            let value: u32 = value.parse().map_err(|_| wrong())?;
            let count = usize::try_from(value)
                .ok()
                .filter(|n| (1..=1_000_000).contains(n));
            match key {
                "endpoints" => spec.endpoints = count.ok_or_else(wrong)?,
                "models" => spec.models = count.ok_or_else(wrong)?,
                "instances" => spec.instances = count.ok_or_else(wrong)?,
                "ttl" => spec.ttl = Duration::from_secs(value.into()),
                _ => return Err(wrong()),
            }
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_wrong_ones_named() {
        let spec: PolicySpec = "ect-g:endpoints=3,models=2,ttl=30".parse().unwrap();
        assert_eq!(
            (spec.endpoints, spec.models, spec.ttl),
            (3, 2, Duration::from_secs(30))
        );
        assert_eq!("published".parse::<PolicySpec>().unwrap().endpoints, 5);
        for bad in [
            "best",
            "ect-g:endpoints",
            "ect-g:endpoints=0",
            "ect-g:x=1",
            "ect-g:ttl=-1",
        ] {
            assert!(bad.parse::<PolicySpec>().is_err(), "{bad}");
        }
        assert!(
            "best"
                .parse::<PolicySpec>()
                .unwrap_err()
                .to_string()
                .contains("one-to-one")
        );
    }
}
