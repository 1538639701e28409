//! The angles of rotary embeddings, as constants of a model.
//!
//! Frequencies and angles are rounded to binary32 step by step in the order in which `transformers` computes them, since
//! models were trained with those; cosines and sines are then taken in binary64 and rounded once.

use super::ConfigError;
use super::config::CONFIG;
use serde_json::Value;

/// How frequencies are changed for sequences longer than the model was first trained on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum RopeScaling {
    /// Not at all.
    None,
    /// Positions are divided by the factor.
    Linear { factor: f32 },
    /// Low frequencies are divided by the factor, high ones stay, and those between are blended.
    Llama3 { factor: f32, low_freq_factor: f32, high_freq_factor: f32, original_positions: f32 },
}

/// The rotary embedding of a model.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Rope {
    pub(crate) theta: f64,
    pub(crate) scaling: RopeScaling,
}

/// Cosines and sines, each `[positions, head_dim / 2]`, row-major.
pub(crate) struct RopeTables {
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
}

impl Rope {
    /// What a configuration says, in the form of `transformers` 5 (`rope_parameters`) or before (`rope_theta`, `rope_scaling`).
    pub(super) fn parse(config: &serde_json::Map<String, Value>) -> Result<Self, ConfigError> {
        let object = |field: &str| config.get(field).and_then(Value::as_object);
        let (field, parameters) = match (object("rope_parameters"), object("rope_scaling")) {
            (Some(parameters), _) => ("rope_parameters", Some(parameters)),
            (None, scaling) => ("rope_scaling", scaling),
        };
        let number = |name: &str| parameters.and_then(|p| p.get(name)).and_then(Value::as_f64);
        let theta = number("rope_theta").or_else(|| config.get("rope_theta").and_then(Value::as_f64));
        let theta = theta.unwrap_or(10_000.0);
        if !(theta.is_finite() && theta > 1.0) {
            return Err(unsupported("rope_theta", &theta.to_string(), "a number above 1"));
        }
        let text = |name: &str| parameters.and_then(|p| p.get(name)).and_then(Value::as_str);
        let kind = text("rope_type").or_else(|| text("type")).unwrap_or("default");
        let positive = |name: &'static str| match number(name) {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value as f32),
            found => {
                let found = found.map_or("absent".to_owned(), |value| value.to_string());
                Err(unsupported(name, &found, "a positive number"))
            }
        };
        let scaling = match kind {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: positive("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: positive("factor")?,
                low_freq_factor: positive("low_freq_factor")?,
                high_freq_factor: positive("high_freq_factor")?,
                original_positions: positive("original_max_position_embeddings")?,
            },
            // What depends on the running length has no table.
            other => return Err(unsupported(field, other, "rope_type default, linear or llama3")),
        };
        if let RopeScaling::Llama3 { low_freq_factor, high_freq_factor, .. } = scaling
            && high_freq_factor <= low_freq_factor
        {
            let found = high_freq_factor.to_string();
            return Err(unsupported("high_freq_factor", &found, "a number above low_freq_factor"));
        }
        Ok(Self { theta, scaling })
    }

    /// The tables for positions below `positions` and heads of `head_dim` columns.
    pub(crate) fn tables(&self, positions: u32, head_dim: u32) -> RopeTables {
        let frequencies: Vec<f32> = (0..head_dim / 2).map(|pair| self.frequency(pair, head_dim)).collect();
        let cells = positions as usize * frequencies.len();
        let mut tables = RopeTables { cos: Vec::with_capacity(cells), sin: Vec::with_capacity(cells) };
        for position in 0..positions {
            for frequency in &frequencies {
                let angle = f64::from(position as f32 * frequency);
                tables.cos.push(libm::cos(angle) as f32);
                tables.sin.push(libm::sin(angle) as f32);
            }
        }
        tables
    }

    fn frequency(&self, pair: u32, head_dim: u32) -> f32 {
        let exponent = (2 * pair) as f32 / head_dim as f32;
        let frequency = 1.0 / libm::pow(self.theta, f64::from(exponent)) as f32;
        match self.scaling {
            RopeScaling::None => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => {
                let wavelength = core::f32::consts::TAU / frequency;
                if wavelength < original_positions / high_freq_factor {
                    return frequency;
                }
                if wavelength > original_positions / low_freq_factor {
                    return frequency / factor;
                }
                let smooth = (original_positions / wavelength - low_freq_factor)
                    / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }
}

fn unsupported(field: &'static str, found: &str, supported: &str) -> ConfigError {
    ConfigError::Unsupported { file: CONFIG, field, found: found.to_owned(), supported: supported.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Rope, ConfigError> {
        Rope::parse(&serde_json::from_str(json).expect("the test's JSON parses"))
    }

    #[test]
    fn both_spellings_of_a_scaling_are_one() {
        let scaling = r#""factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192"#;
        let old =
            format!(r#"{{"rope_theta": 500000.0, "rope_scaling": {{"rope_type": "llama3", {scaling}}}}}"#);
        let new =
            format!(r#"{{"rope_parameters": {{"rope_type": "llama3", "rope_theta": 500000.0, {scaling}}}}}"#);
        let (old, new) = (parse(&old).expect("parses"), parse(&new).expect("parses"));
        assert_eq!(old, new);
        assert!(matches!(old.scaling, RopeScaling::Llama3 { factor: 8.0, .. }));
        assert_eq!(parse("{}").expect("parses"), Rope { theta: 10_000.0, scaling: RopeScaling::None });
        assert_eq!(parse(r#"{"rope_scaling": null}"#).expect("parses").scaling, RopeScaling::None);
    }

    #[test]
    fn a_scaling_that_no_table_can_hold_is_refused_by_name() {
        for kind in ["dynamic", "yarn", "longrope"] {
            let error = parse(&format!(r#"{{"rope_scaling": {{"type": "{kind}", "factor": 2.0}}}}"#));
            let message = error.expect_err("unsupported").to_string();
            assert!(message.contains("rope_scaling") && message.contains(kind), "{message}");
        }
        let message = parse(r#"{"rope_scaling": {"type": "linear"}}"#).expect_err("no factor").to_string();
        assert!(message.contains("factor") && message.contains("absent"), "{message}");
    }

    #[test]
    fn llama3_keeps_high_frequencies_divides_low_ones_and_blends_between() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_positions: 8192.0,
        };
        let (plain, scaled) =
            (Rope { theta: 500_000.0, scaling: RopeScaling::None }, Rope { theta: 500_000.0, scaling });
        let ratio = |pair| scaled.frequency(pair, 128) / plain.frequency(pair, 128);
        assert_eq!(ratio(0), 1.0);
        assert_eq!(ratio(63), 0.125);
        assert!((0..63).all(|pair| ratio(pair) >= ratio(pair + 1)), "the ratio falls with the frequency");
        assert!((0..64).any(|pair| (0.13..0.99).contains(&ratio(pair))), "some are blended");
    }

    #[test]
    fn tables_hold_the_angles_of_every_position() {
        let tables = Rope { theta: 10_000.0, scaling: RopeScaling::None }.tables(3, 4);
        assert_eq!(tables.cos[..2], [1.0, 1.0]);
        assert_eq!(tables.sin[..2], [0.0, 0.0]);
        assert_eq!(tables.cos[2], 1f64.cos() as f32);
        assert_eq!(tables.sin[4], 2f64.sin() as f32);
        assert_eq!(tables.sin[5], f64::from(2.0 * 0.01f32).sin() as f32);
        assert_eq!(tables.cos.len(), 6);
    }
}
