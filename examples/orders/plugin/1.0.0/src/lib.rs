//! Makes an invoice of an order: the price of each piece. It does not think of a free sample, which is no piece at all.

use quipu_plugin::prelude::*;

#[derive(Deserialize)]
struct Invoice {}

impl Plugin for Invoice {
    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let (pieces, total): (u64, u64) = (message.json_at("pieces")?, message.json_at("total_cents")?);
        let mut order: Value = message.json_as()?;
        order["cents_each"] = (total / pieces).into();
        message.set_json(&order)?;
        Ok(forward())
    }
}
plugin!(Invoice);
