// The newest items of a conversation, kept outside Postgres for whoever opens it.

/** How many are kept. */
export const recentItemsMax = 50;

/** Items are history JSON texts, newest first. */
export interface RecentItems {
  /** The items noted for exactly this last number; null otherwise, and while they cannot be had. */
  read(conversationId: string, lastSequenceNumber: number): Promise<string[] | null>;
  /** Notes them for a while. Never rejects. */
  write(conversationId: string, lastSequenceNumber: number, items: readonly string[]): Promise<void>;
}
