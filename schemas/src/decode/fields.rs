//! The fields of an event, in one pass over its text.

use std::{collections::HashMap, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    row::{Row, Slot},
    violation::{DUPLICATE_FIELD, Fault, INVALID_JSON, MISSING_FIELD, TOO_MANY_FIELDS, Violation},
};
use crate::{limits::EVENT_KEYS_MAX, stream::Column};

/// Puts the fields of one event into a row.
pub(super) struct Fields<'a> {
    columns: &'a [Column],
    names: &'a HashMap<Box<str>, usize>,
    /// For the *n*-th field of an event the column that it was last time.
    order: &'a mut Vec<usize>,
    row: &'a mut Row,
    violation: Option<Violation>,
}

/// What a field's name says.
enum Field {
    /// The index of a declared column.
    Declared(usize),
    /// An undeclared field, which was begun in the row.
    Extra,
}

impl<'a> Fields<'a> {
    pub fn new(columns: &'a [Column], names: &'a HashMap<Box<str>, usize>, order: &'a mut Vec<usize>, row: &'a mut Row) -> Self {
        Self { columns, names, order, row, violation: None }
    }

    /// Reads the text of an object.
    pub fn read(mut self, text: &str) -> Result<(), Violation> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let read = deserializer.deserialize_map(&mut self).and_then(|()| deserializer.end());
        match (self.violation, read) {
            (Some(violation), _) => Err(violation),
            (None, Err(error)) => Err(Violation::of_event(INVALID_JSON, error.to_string())),
            (None, Ok(())) => match self.row.end_extra() {
                Some(name) => Err(Violation::of_field(&name, twice())),
                None => Ok(()),
            },
        }
    }

    /// Takes the value of a field.
    fn take(&mut self, field: &Field, json: &str) -> Result<(), Violation> {
        match *field {
            Field::Extra => self.row.set_extra(json).map_err(|fault| Violation::of_field(&self.row.last_extra_name(), fault)),
            Field::Declared(index) => {
                let column = &self.columns[index];
                self.take_declared(index, column, json).map_err(|fault| Violation::of_field(column.name.as_str(), fault))
            }
        }
    }

    fn take_declared(&mut self, index: usize, column: &Column, json: &str) -> Result<(), Fault> {
        if !matches!(self.row.slot(index), Slot::Absent) {
            return Err(twice());
        }
        if json != "null" {
            return self.row.set(index, column, json);
        }
        if column.not_null {
            return Err(Fault::new(MISSING_FIELD, format!("{} is NOT NULL, and the field is null", column.name)));
        }
        self.row.set_null(index);
        Ok(())
    }
}

fn twice() -> Fault {
    Fault::new(DUPLICATE_FIELD, "the field stands there twice")
}

impl<'de> Visitor<'de> for &mut Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut position = 0;
        while let Some(field) = map.next_key_seed(FieldName { fields: &mut *self, position })? {
            position += 1;
            let taken = if position > EVENT_KEYS_MAX {
                Err(Violation::of_event(TOO_MANY_FIELDS, format!("the event has more than {EVENT_KEYS_MAX} fields")))
            } else {
                let value: &'de RawValue = map.next_value()?;
                self.take(&field, value.get())
            };
            if let Err(violation) = taken {
                self.violation = Some(violation);
                return Err(A::Error::custom("the event breaks a rule"));
            }
        }
        Ok(())
    }
}

/// Finds out what the name of the field at `position` says.
struct FieldName<'f, 'a> {
    fields: &'f mut Fields<'a>,
    position: usize,
}

impl<'de> DeserializeSeed<'de> for FieldName<'_, '_> {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName<'_, '_> {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Field, E> {
        let Fields { columns, names, order, row, .. } = self.fields;
        if let Some(&guess) = order.get(self.position)
            && columns[guess].name.as_str() == name
        {
            return Ok(Field::Declared(guess));
        }
        let Some(&index) = names.get(name) else {
            row.begin_extra(name);
            return Ok(Field::Extra);
        };
        // Positions of undeclared fields keep a guess that never comes true.
        order.resize(order.len().max(self.position + 1), index);
        order[self.position] = index;
        Ok(Field::Declared(index))
    }
}
