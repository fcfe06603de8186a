//! Makes an invoice of an order: the price of each piece. Of no pieces, a free sample, that is nothing.

use quipu_plugin::prelude::*;

#[derive(Deserialize)]
struct Invoice {}

impl Plugin for Invoice {
    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let (pieces, total): (u64, u64) = (message.json_at("pieces")?, message.json_at("total_cents")?);
        let mut order: Value = message.json_as()?;
        order["cents_each"] = total.checked_div(pieces).unwrap_or(0).into();
        message.set_json(&order)?;
        Ok(forward())
    }
}
plugin!(Invoice);
