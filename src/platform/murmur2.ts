// A key comes in, the partition that every Kafka client in its default setting chooses leaves.
// The outbox stores it as the shard of a row, so it must never change for a given key and count.

const seed = 0x9747b28c;
const multiplier = 0x5bd1e995;
const encoder = new TextEncoder();

/** The key of every record of a conversation: all its records are on one partition, and so in order. */
export function conversationKey(conversationId: string): string {
  return `conversation:${conversationId}`;
}

/**
 * The partition that Java's DefaultPartitioner chooses for a key, hashed as UTF-8:
 * `toPositive(murmur2(key)) % partitions` (org.apache.kafka.clients.producer.internals.BuiltInPartitioner).
 */
export function partitionOf(key: string, partitions: number): number {
  return (murmur2(encoder.encode(key)) & 0x7fffffff) % partitions;
}

/** org.apache.kafka.common.utils.Utils.murmur2: MurmurHash2 of 32 bits with a fixed seed. */
function murmur2(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wholeWordsEnd = bytes.length & ~3;
  let hash = seed ^ bytes.length;
  for (let position = 0; position < wholeWordsEnd; position += 4) {
    let word = Math.imul(view.getInt32(position, true), multiplier);
    word ^= word >>> 24;
    hash = Math.imul(hash, multiplier) ^ Math.imul(word, multiplier);
  }
  if (wholeWordsEnd < bytes.length) {
    for (let position = bytes.length - 1; position >= wholeWordsEnd; position -= 1) {
      hash ^= view.getUint8(position) << (8 * (position - wholeWordsEnd));
    }
    hash = Math.imul(hash, multiplier);
  }
  hash = Math.imul(hash ^ (hash >>> 13), multiplier);
  return hash ^ (hash >>> 15);
}
