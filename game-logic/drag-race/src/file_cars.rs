//! The cars of a car file as the module takes them.

use crate::car_file::{CarEntry, CarFile, SharedEntry, ShiftEntry};
use crate::cars::{Aspiration, Car, Drive, EngineAt, Published, Shared, Shift, Source, Torque, Transmission};

impl CarFile {
    /// What the file assumes of every car.
    pub fn shared(&self) -> Shared {
        Shared::from(&self.shared)
    }

    /// The cars, in the file's order. [`Car::check`] accepts each: the ranges are the same.
    pub fn cars(&self) -> Vec<Car> {
        let shared = self.shared();
        self.cars.iter().map(|entry| car(entry, shared)).collect()
    }
}

impl From<&SharedEntry> for Shared {
    fn from(entry: &SharedEntry) -> Self {
        let shift = |ShiftEntry { time_s, torque_share }: ShiftEntry| Shift { time_s, torque_share };
        Self {
            air_density_kgm3: entry.air_density_kgm3,
            peak_slip: entry.peak_slip,
            sliding_grip_share: entry.sliding_grip_share,
            suspension_lag_s: entry.suspension_lag_s,
            clutch_capacity_factor: entry.clutch_capacity_factor,
            undriven_wheel_drag_nm: entry.undriven_wheel_drag_nm,
            shift_manual: shift(entry.shift_manual),
            shift_dct: shift(entry.shift_dct),
            shift_automatic: shift(entry.shift_automatic),
        }
    }
}

/// The words of an entry are those that the reader knows.
fn car(entry: &CarEntry, shared: Shared) -> Car {
    let CarEntry { stall_rpm, converter_torque_ratio: torque_ratio, .. } = *entry;
    Car {
        id: entry.id.clone().into(),
        name: entry.name.clone().into(),
        year: entry.year,
        drive: match entry.drive {
            "fwd" => Drive::Fwd,
            "rwd" => Drive::Rwd,
            _ => Drive::Awd,
        },
        engine_at: match entry.engine_at {
            "front" => EngineAt::Front,
            "mid" => EngineAt::Mid,
            _ => EngineAt::Rear,
        },
        aspiration: match entry.aspiration {
            "natural" => Aspiration::Natural,
            "turbo" => Aspiration::Turbo,
            "supercharged" => Aspiration::Supercharged,
            _ => Aspiration::Electric,
        },
        transmission: match entry.transmission {
            "manual" => Transmission::Manual,
            "dct" => Transmission::Dct,
            "single_speed" => Transmission::SingleSpeed,
            _ => Transmission::Automatic { stall_rpm, torque_ratio },
        },
        mass_kg: entry.mass_kg,
        front_weight_share: entry.front_weight_share,
        wheelbase_m: entry.wheelbase_m,
        cg_height_m: entry.cg_height_m,
        drag_area_m2: entry.drag_area_m2,
        tyre_class: entry.tyre_class.into(),
        tyre_grip: entry.tyre_grip,
        tyre_radius_m: entry.tyre_radius_m,
        driveline_efficiency: entry.driveline_efficiency,
        ratios: entry.ratios.clone().into(),
        engine_inertia_kgm2: entry.engine_inertia_kgm2,
        wheel_inertia_kgm2: entry.wheel_inertia_kgm2,
        idle_rpm: entry.idle_rpm,
        limiter_rpm: entry.limiter_rpm,
        peak_torque_nm: entry.peak_torque_nm,
        peak_power_kw: entry.peak_power_kw,
        torque_nm: Torque::new(entry.torque_nm.clone()),
        launch_rpm: entry.launch_rpm,
        shift_rpm: entry.shift_rpm,
        published: entry.published.map(|(quarter_mile_s, trap_mph)| Published { quarter_mile_s, trap_mph }),
        shared,
        sources: entry.sources.iter().map(source).collect(),
    }
}

fn source(entry: &crate::car_file::SourceEntry) -> Source {
    Source {
        fact: entry.fact.clone().into(),
        name: entry.name.clone().into(),
        url: entry.url.clone().into(),
        from_memory: entry.from_memory,
    }
}
