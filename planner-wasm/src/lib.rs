//! The arithmetic of lrpath for a web page.
//!
//! A thin skin: each function takes what a page knows, asks `paradigm`, and gives the answer as it is. The page computes
//! nothing itself, so what it shows is what the daemon does, to the last bit. Types are declared for TypeScript out of the
//! Rust types. A refusal is an `Error` whose message begins with the field's name.

use js_sys::{Array, Number, Reflect};
use paradigm::alpha::{self, Point};
use paradigm::cost::{Batch, Cost, Meter, Rates, Speed};
use paradigm::device::Device;
use paradigm::disk::Disk;
use paradigm::footprint::{Footprint, Load, Sharding};
use paradigm::loss_law::{Curve, Law};
use paradigm::model::config::{KEYS, Kind};
use paradigm::model::{ConfigJson, Convention, ModelError, Sizes};
use paradigm::published::PublishedRun;
use paradigm::report::ReportError;
use paradigm::timeline::{Pace, Timeline};
use paradigm::{Increments, Model, Paradigm, Report, Segment, Settings};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tsify::Tsify;
use wasm_bindgen::prelude::*;

/// What a configuration gives.
#[derive(Debug, Clone, Copy, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// Its sizes.
    pub sizes: Sizes,
    /// All parameters.
    pub parameters: u64,
    /// Those that a token goes through.
    pub active_parameters: u64,
    /// Those of the embedding.
    pub embedding_parameters: u64,
    /// Those in matrix products.
    pub matmul_parameters: u64,
    /// FLOPs of a token, as if each position saw the whole sequence.
    pub flops_per_token: u64,
    /// FLOPs of a token, of what a causal mask lets be seen.
    pub flops_per_token_causal: u64,
}

/// What steps cost, and how fast they go.
#[derive(Debug, Clone, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
pub struct Costs {
    /// Tokens a second of one device.
    pub pace: paradigm::band::Band,
    /// FLOPs of a token.
    pub flops_per_token: u64,
    /// One for each number of steps.
    pub costs: Vec<Cost>,
}

/// The way to a version.
#[derive(Debug, Clone, Deserialize, Tsify)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Way {
    /// The paradigm.
    pub paradigm: Paradigm,
    /// Steps of all increments.
    pub increments: Vec<u64>,
    /// Share of an increment that its branch covers.
    pub alpha: f64,
    /// The version, from 1.
    pub version: u32,
}

type Answer = Result<JsValue, JsError>;

/// What the page gave; a refusal names it.
fn given<T: DeserializeOwned>(what: &str, value: JsValue) -> Result<T, JsError> {
    serde_wasm_bindgen::from_value(value).map_err(|error| JsError::new(&format!("{what}: {error}")))
}

fn answer<T: Serialize>(value: &T) -> Answer {
    value.serialize(&serde_wasm_bindgen::Serializer::new()).map_err(|error| JsError::new(&error.to_string()))
}

/// What a `config.json` gives.
///
/// # Errors
/// It is of no family that is known, or its sizes make no model.
#[wasm_bindgen(js_name = countModel, unchecked_return_type = "Counted")]
pub fn count_model(
    #[wasm_bindgen(unchecked_param_type = "ConfigJson")] config: JsValue,
    #[wasm_bindgen(js_name = sequenceLength)] sequence_length: u32,
) -> Answer {
    let model = model(config)?;
    let flops = |convention| model.flops_per_token(u64::from(sequence_length), convention);
    answer(&Counted {
        sizes: *model.sizes(),
        parameters: model.parameters(),
        active_parameters: model.active_parameters(),
        embedding_parameters: model.embedding_parameters(),
        matmul_parameters: model.matmul_parameters(),
        flops_per_token: flops(Convention::Full)?,
        flops_per_token_causal: flops(Convention::Causal)?,
    })
}

fn model(config: JsValue) -> Result<Model, JsError> {
    if !config.is_object() {
        return Err(JsError::new("config.json: it is no object; the configuration of a model was expected"));
    }
    // The reader behind `given` names no key, and a file that people paste may hold anything.
    for (key, kind) in KEYS {
        let value = Reflect::get(&config, &key.into()).unwrap_or(JsValue::UNDEFINED);
        if !value.is_undefined() && !value.is_null() && !is_of_kind(&value, kind) {
            return Err(ModelError::Kind { key, kind }.into());
        }
    }
    Ok(Model::try_from(given::<ConfigJson>("config.json", config)?)?)
}

fn is_of_kind(value: &JsValue, kind: Kind) -> bool {
    let is_count = |value: &JsValue| {
        value.as_f64().is_some_and(|number| number >= 0.0 && Number::is_safe_integer(value))
    };
    match kind {
        Kind::Word => value.is_string(),
        Kind::Count => is_count(value),
        Kind::Flag => value.as_bool().is_some(),
        Kind::Counts => Array::is_array(value) && Array::from(value).iter().all(|one| is_count(&one)),
    }
}

/// The plans of all paradigms.
///
/// # Errors
/// There are no such increments, or no such alpha.
#[wasm_bindgen(unchecked_return_type = "Report")]
pub fn plan(#[wasm_bindgen(unchecked_param_type = "number[]")] increments: JsValue, alpha: f64) -> Answer {
    answer(&Report::new(&given::<Vec<u64>>("increments", increments)?, alpha)?)
}

/// Steps of increments of so many tokens: the whole steps so far, less those before.
///
/// # Errors
/// There is no such batch, or a number is no count.
#[wasm_bindgen(js_name = wholeSteps, unchecked_return_type = "number[]")]
pub fn whole_steps(
    #[wasm_bindgen(unchecked_param_type = "number[]")] increments: JsValue,
    #[wasm_bindgen(unchecked_param_type = "Batch")] batch: JsValue,
) -> Answer {
    let increments: Vec<u64> = given("increments", increments)?;
    answer(&given::<Batch>("batch", batch)?.whole_steps(&increments)?)
}

/// What stands on the disk once all versions are there.
///
/// # Errors
/// 2^53 bytes or more.
#[wasm_bindgen(unchecked_return_type = "Disk")]
pub fn disk(
    #[wasm_bindgen(unchecked_param_type = "ConfigJson")] config: JsValue,
    #[wasm_bindgen(unchecked_param_type = "Paradigm")] paradigm: JsValue,
    versions: u32,
    #[wasm_bindgen(js_name = branchPoints)] branch_points: u32,
) -> Answer {
    answer(&Disk::new(&model(config)?, given("paradigm", paradigm)?, versions, branch_points)?)
}

/// Fails where a warm-up is longer than what holds it, or the settings give no learning rates.
///
/// # Errors
/// Which, and what would do.
#[wasm_bindgen(js_name = checkWarmup)]
pub fn check_warmup(
    #[wasm_bindgen(unchecked_param_type = "number[]")] increments: JsValue,
    alpha: f64,
    #[wasm_bindgen(unchecked_param_type = "Settings")] settings: JsValue,
) -> Result<(), JsError> {
    let report = Report::new(&given::<Vec<u64>>("increments", increments)?, alpha)?;
    report.check(&given::<Settings>("settings", settings)?).map_err(|error| match error {
        ReportError::TooSmall { .. } => JsError::new(&format!("warmup_steps: {error}")),
        error => error.into(),
    })
}

/// The smallest first increment whose branch leaves the main path behind its warm-up; undefined where none does.
///
/// # Errors
/// There is no such alpha.
#[wasm_bindgen(js_name = smallestFirstIncrement)]
pub fn smallest_first_increment(
    #[wasm_bindgen(js_name = warmupSteps)] warmup_steps: f64,
    alpha: f64,
) -> Result<Option<f64>, JsError> {
    let smallest = paradigm::increments::smallest_first_increment(warmup_steps as u64, alpha)?;
    Ok(smallest.map(|steps| steps as f64))
}

/// Learning rates of a segment, of the steps that are asked for; NaN where it has no such step.
///
/// # Errors
/// The segment has no schedule under the settings.
#[wasm_bindgen(js_name = learningRates)]
pub fn learning_rates(
    #[wasm_bindgen(unchecked_param_type = "Segment")] segment: JsValue,
    #[wasm_bindgen(unchecked_param_type = "Settings")] settings: JsValue,
    steps: &[f64],
) -> Result<Vec<f64>, JsError> {
    let schedule =
        given::<Segment>("segment", segment)?.schedule(&given::<Settings>("settings", settings)?)?;
    Ok(steps.iter().map(|step| schedule.rate(*step as u64)).collect())
}

/// What these numbers of steps cost.
///
/// # Errors
/// A number that nothing can be computed from.
#[wasm_bindgen(unchecked_return_type = "Costs")]
pub fn costs(
    #[wasm_bindgen(unchecked_param_type = "ConfigJson")] config: JsValue,
    #[wasm_bindgen(unchecked_param_type = "Batch")] batch: JsValue,
    #[wasm_bindgen(unchecked_param_type = "Speed")] speed: JsValue,
    #[wasm_bindgen(unchecked_param_type = "Rates")] rates: JsValue,
    #[wasm_bindgen(unchecked_param_type = "number[]")] steps: JsValue,
) -> Answer {
    let (batch, speed, rates): (Batch, Speed, Rates) =
        (given("batch", batch)?, given("speed", speed)?, given("rates", rates)?);
    let meter = Meter::new(&model(config)?, &batch, &speed, &rates)?;
    let steps: Vec<u64> = given("steps", steps)?;
    let costs = steps.iter().map(|steps| meter.cost(*steps)).collect::<Result<Vec<Cost>, _>>()?;
    answer(&Costs { pace: meter.pace(), flops_per_token: meter.flops_per_token(), costs })
}

/// Who trains what when.
///
/// # Errors
/// There are no such increments, or no such pace.
#[wasm_bindgen(unchecked_return_type = "Timeline")]
pub fn timeline(
    #[wasm_bindgen(unchecked_param_type = "Paradigm")] paradigm: JsValue,
    #[wasm_bindgen(unchecked_param_type = "number[]")] increments: JsValue,
    alpha: f64,
    #[wasm_bindgen(unchecked_param_type = "Pace")] pace: JsValue,
) -> Answer {
    let increments = Increments::new(&given::<Vec<u64>>("increments", increments)?, alpha)?;
    answer(&Timeline::new(given("paradigm", paradigm)?, &increments, &given::<Pace>("pace", pace)?)?)
}

/// What a device must hold.
///
/// # Errors
/// There is no such cluster.
#[wasm_bindgen(unchecked_return_type = "Footprint")]
pub fn footprint(
    #[wasm_bindgen(unchecked_param_type = "ConfigJson")] config: JsValue,
    #[wasm_bindgen(unchecked_param_type = "Sharding")] sharding: JsValue,
    #[wasm_bindgen(unchecked_param_type = "Load")] load: JsValue,
) -> Answer {
    answer(&Footprint::new(
        &model(config)?,
        &given::<Sharding>("sharding", sharding)?,
        &given::<Load>("load", load)?,
    )?)
}

/// The losses that a law predicts after these steps, in rising order, on the way to a version.
///
/// # Errors
/// A parameter that the law cannot have, or a step of which it says nothing.
#[wasm_bindgen]
pub fn losses(
    #[wasm_bindgen(unchecked_param_type = "Law")] law: JsValue,
    #[wasm_bindgen(unchecked_param_type = "Way")] way: JsValue,
    #[wasm_bindgen(unchecked_param_type = "Settings")] settings: JsValue,
    steps: &[f64],
) -> Result<Vec<f64>, JsError> {
    let Way { paradigm, increments, alpha, version } = given("way", way)?;
    let increments = Increments::new(&increments, alpha)?;
    let curve = Curve::new(paradigm, &increments, version, &given::<Settings>("settings", settings)?)?;
    let steps: Vec<u64> = steps.iter().map(|step| *step as u64).collect();
    Ok(given::<Law>("law", law)?.losses(&curve, &steps)?)
}

/// Cost, and with a law predicted loss, against alpha.
///
/// # Errors
/// An alpha that is none, or a law that says nothing.
#[wasm_bindgen(js_name = alphaPoints, unchecked_return_type = "Point[]")]
pub fn alpha_points(
    #[wasm_bindgen(unchecked_param_type = "number[]")] increments: JsValue,
    #[wasm_bindgen(unchecked_param_type = "Settings")] settings: JsValue,
    #[wasm_bindgen(unchecked_param_type = "Law | undefined")] law: JsValue,
    alphas: &[f64],
) -> Answer {
    let (sizes, settings): (Vec<u64>, Settings) =
        (given("increments", increments)?, given("settings", settings)?);
    let law: Option<Law> = given("law", law)?;
    let points: Vec<Point> = alpha::points(&sizes, &settings, law.as_ref(), alphas)?;
    answer(&points)
}

/// The devices that are known.
///
/// # Errors
/// None.
#[wasm_bindgen(unchecked_return_type = "Device[]")]
pub fn devices() -> Answer {
    answer(&Device::ALL.as_slice())
}

/// Runs whose device-hours are published.
///
/// # Errors
/// None.
#[wasm_bindgen(js_name = publishedRuns, unchecked_return_type = "PublishedRun[]")]
pub fn published_runs() -> Answer {
    answer(&PublishedRun::ALL.as_slice())
}

/// What would have been predicted of a published run, by the place in the list, with the configuration of its model.
///
/// # Errors
/// There is no such run, or no such model.
#[wasm_bindgen(js_name = judgeRun, unchecked_return_type = "Judged")]
pub fn judge_run(
    place: usize,
    #[wasm_bindgen(unchecked_param_type = "ConfigJson")] config: JsValue,
) -> Answer {
    let Some(run) = PublishedRun::ALL.get(place) else {
        return Err(JsError::new(&format!("place: there is no published run {place}")));
    };
    answer(&run.judge(&model(config)?)?)
}

/// Models that people know, as JSON: a list of `{"id", "name", "config"}`.
#[wasm_bindgen]
pub fn presets() -> String {
    paradigm::model::PRESETS.to_owned()
}

/// What the default share of a device's rate stands on.
#[wasm_bindgen(js_name = mfuSource)]
pub fn mfu_source() -> String {
    Device::MFU_SOURCE.to_owned()
}

/// Mean relative error of a loss law: the range beside a predicted loss.
#[wasm_bindgen(js_name = lawError)]
pub fn law_error() -> f64 {
    alpha::LAW_ERROR
}

/// What stands beside every predicted loss.
#[wasm_bindgen(js_name = lossWarning)]
pub fn loss_warning() -> String {
    alpha::WARNING.to_owned()
}
