//! Cars that come with a room: read from its options, chosen by its players, kept in its state. The catalogue's cars are a number there, since
//! every build of the rules has them; these are there with all their figures, so that a state or a journal needs nothing beside it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::cars::{Car, Shared, UnknownCar, cars, find_car};
use crate::ranges::{CARS_MAX, ID_BYTES};

/// Ids of a room's cars that an error lists: more than most rooms bring.
const IDS_SHOWN_MAX: usize = 32;

/// What a room's options say of its cars.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CarsOption {
    /// What is assumed of all cars of this room, the catalogue's too; absent: what the catalogue assumes.
    shared: Option<Shared>,
    /// The cars. One with an id of the catalogue takes that car's place.
    car: Vec<Value>,
}

/// The value of the option `cars` that brings these cars into a room.
pub fn to_options_json(cars: &[Car], shared: &Shared) -> Value {
    json!({ "shared": shared, "car": cars })
}

/// The cars among which a room's players choose.
#[derive(Debug)]
pub(crate) struct RoomCars {
    shared: Option<Shared>,
    cars: Vec<Car>,
}

impl RoomCars {
    /// Checks what the options say.
    ///
    /// # Errors
    /// In words: the first car, field and value that is wrong, and what is accepted there.
    pub(crate) fn read(option: CarsOption) -> Result<Self, String> {
        let CarsOption { shared, car: values } = option;
        if let Some(shared) = &shared {
            shared.check().map_err(|error| error.to_string())?;
        }
        if values.len() > CARS_MAX {
            return Err(format!("`car` is a list of {}; accepted: up to {CARS_MAX} cars", values.len()));
        }
        let mut cars: Vec<Car> = Vec::with_capacity(values.len());
        for (number, value) in values.into_iter().enumerate() {
            let id = value.get("id").and_then(Value::as_str).unwrap_or_default();
            let label =
                format!("car number {} ({:?})", number + 1, id.chars().take(*ID_BYTES.end()).collect::<String>());
            let mut car: Car = serde_json::from_value(value).map_err(|error| format!("{label}: {error}"))?;
            car.check().map_err(|error| error.to_string())?;
            if cars.iter().any(|other| other.id == car.id) {
                return Err(format!(
                    "{label}: field `id` is there a second time; accepted: an id that no other car has"
                ));
            }
            car.shared = shared.unwrap_or_default();
            cars.push(car);
        }
        Ok(Self { shared, cars })
    }

    /// Finds a car for the race: its number for a lane, see [`RaceCars::car`].
    ///
    /// # Errors
    /// If neither the room nor the catalogue has it.
    pub(crate) fn choose(&self, id: &str, race: &mut RaceCars) -> Result<u16, String> {
        if let Some(car) = self.cars.iter().find(|car| car.id == id) {
            return Ok(race.number_of(car));
        }
        match (find_car(id), &self.shared) {
            (Ok((number, _)), None) => Ok(number),
            (Ok((_, car)), Some(shared)) => Ok(race.number_of(&Car { shared: *shared, ..car.clone() })),
            (Err(error), _) => Err(self.unknown(&error)),
        }
    }

    fn unknown(&self, error: &UnknownCar) -> String {
        let ids: Vec<&str> = self.cars.iter().take(IDS_SHOWN_MAX).map(|car| &*car.id).collect();
        if ids.is_empty() { error.to_string() } else { format!("{error}; and of this room: {}", ids.join(", ")) }
    }
}

/// The cars of a race that are not the catalogue's: those of the room that somebody drives.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RaceCars {
    cars: Vec<Car>,
}

impl RaceCars {
    /// Numbers from here on are of these cars, those below of the catalogue.
    const FROM: u16 = 0x8000;

    /// The car of a number; the catalogue's first one for a number that a damaged state made up.
    #[inline]
    pub(crate) fn car(&self, number: u16) -> &Car {
        let found = match number.checked_sub(Self::FROM) {
            None => cars().get(usize::from(number)),
            Some(own) => self.cars.get(usize::from(own)),
        };
        found.unwrap_or(&cars()[0])
    }

    /// Whether a number is of one of these cars and not of the catalogue.
    pub(crate) fn is_own(number: u16) -> bool {
        number >= Self::FROM
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cars.is_empty()
    }

    fn number_of(&mut self, car: &Car) -> u16 {
        let at = self.cars.iter().position(|other| other == car).unwrap_or_else(|| {
            self.cars.push(car.clone());
            self.cars.len() - 1
        });
        // A race has no more cars than lanes, 64.
        Self::FROM + at as u16
    }
}

/// As it is in a state: what all these cars share once.
#[derive(Serialize)]
struct Written<'a> {
    shared: Shared,
    car: &'a [Car],
}

#[derive(Deserialize)]
struct Read {
    shared: Shared,
    car: Vec<Car>,
}

impl Serialize for RaceCars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shared = self.cars.first().map(|car| car.shared).unwrap_or_default();
        Written { shared, car: &self.cars }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RaceCars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { shared, car: mut cars } = Read::deserialize(deserializer)?;
        shared.check().map_err(serde::de::Error::custom)?;
        for car in &mut cars {
            car.check().map_err(serde::de::Error::custom)?;
            car.shared = shared;
        }
        Ok(Self { cars })
    }
}
