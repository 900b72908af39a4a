// The statements of live delivery, as text.
import eventsAfter from "../../sql/deliver/events_after.sql" with { type: "text" };
import newestNumbers from "../../sql/deliver/newest_numbers.sql" with { type: "text" };
import standing from "../../sql/deliver/standing.sql" with { type: "text" };

export const queries = { eventsAfter, newestNumbers, standing };
