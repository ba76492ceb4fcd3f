//! Figures as text for Prometheus: the OpenMetrics 1.0 text format, written by prometheus-client. What the figures are is the business of
//! [`super::gather`].

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::distribution::Distribution;

/// The media type of a page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels of a sample, in the order in which they are written.
pub(super) type Labels = Vec<(&'static str, String)>;

/// A page that is being put together.
#[derive(Debug, Default)]
pub(super) struct Page {
    families: Vec<Family>,
}

/// The samples of one name.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    samples: Vec<(Labels, Value)>,
}

#[derive(Debug)]
enum Value {
    Count(u64),
    Seconds(f64),
    Gauge(f64),
    WholeGauge(u64),
    Histogram {
        sum: f64,
        count: u64,
        buckets: Vec<(f64, u64)>,
    },
    /// The labels are all there is.
    Info,
}

impl Page {
    /// What counts up: `name_total`.
    pub(super) fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        self.family(name, help, None, MetricType::Counter, samples, Value::Count);
    }

    /// Time that adds up: `name_seconds_total`.
    pub(super) fn seconds_counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        self.family(name, help, Some(Unit::Seconds), MetricType::Counter, samples, Value::Seconds);
    }

    /// Bytes that add up: `name_bytes_total`.
    pub(super) fn bytes_counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        self.family(name, help, Some(Unit::Bytes), MetricType::Counter, samples, Value::Count);
    }

    /// What goes up and down.
    pub(super) fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        self.family(name, help, None, MetricType::Gauge, samples, Value::WholeGauge);
    }

    /// Bytes that go up and down: `name_bytes`.
    pub(super) fn bytes(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        self.family(name, help, Some(Unit::Bytes), MetricType::Gauge, samples, Value::WholeGauge);
    }

    /// A time that goes up and down: `name_seconds`.
    pub(super) fn seconds(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        self.family(name, help, Some(Unit::Seconds), MetricType::Gauge, samples, Value::Gauge);
    }

    /// Times with their number in each range: `name_seconds_bucket`, `_sum`, `_count`. The distributions count parts of a second, `per_second` of
    /// which are one.
    pub(super) fn times<'a>(
        &mut self,
        name: &'static str,
        help: &'static str,
        per_second: f64,
        samples: impl IntoIterator<Item = (Labels, &'a Distribution)>,
    ) {
        let value = |distribution: &Distribution| Value::Histogram {
            sum: distribution.sum() as f64 / per_second,
            count: distribution.count(),
            buckets: distribution
                .ranges()
                .into_iter()
                .map(|(most, count)| (most.map_or(f64::INFINITY, |most| most as f64 / per_second), count))
                .collect(),
        };
        self.family(name, help, Some(Unit::Seconds), MetricType::Histogram, samples, value);
    }

    /// A text that stands for something: `name_info`.
    pub(super) fn info(&mut self, name: &'static str, help: &'static str, labels: Labels) {
        self.family(name, help, None, MetricType::Info, [(labels, ())], |()| Value::Info);
    }

    fn family<V>(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        kind: MetricType,
        samples: impl IntoIterator<Item = (Labels, V)>,
        value: impl Fn(V) -> Value,
    ) {
        let samples = samples.into_iter().map(|(labels, v)| (labels, value(v))).collect();
        self.families.push(Family { name, help, unit, kind, samples });
    }

    /// The text.
    ///
    /// # Errors
    /// A value that the format has no text for, which no figure of a host is.
    pub(super) fn text(self) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut page = String::new();
        text::encode(&mut page, &registry)?;
        Ok(page)
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for family in &self.families {
            // A family without samples is told all the same: who looks for it finds that there is nothing.
            let mut metric = encoder.encode_descriptor(family.name, family.help, family.unit.as_ref(), family.kind)?;
            for (labels, value) in &family.samples {
                if let Value::Info = value {
                    metric.encode_info(&labels.as_slice())?;
                } else if labels.is_empty() {
                    value.encode(&mut metric)?;
                } else {
                    value.encode(&mut metric.encode_family(&labels.as_slice())?)?;
                }
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(&self, metric: &mut MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Count(value) => metric.encode_counter::<NoLabelSet, _, f64>(value, None),
            Self::Seconds(value) => metric.encode_counter::<NoLabelSet, _, f64>(value, None),
            Self::Gauge(value) => metric.encode_gauge(value),
            Self::WholeGauge(value) => metric.encode_gauge(value),
            Self::Histogram { sum, count, buckets } => {
                metric.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
            }
            Self::Info => Ok(()),
        }
    }
}
