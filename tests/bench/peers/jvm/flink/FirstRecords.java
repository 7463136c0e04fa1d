package peers;

import java.util.Map;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.ConsumerInterceptor;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;

/**
 * Tells of the first records that a Kafka consumer of this process hands out.
 *
 * <p>It deliberately sits in the consumer, which calls it once for thousands of records: what runs above differs from
 * side to side, and costs nothing more for being watched.
 */
public final class FirstRecords implements ConsumerInterceptor<Object, Object> {
  private static final AtomicBoolean TOLD = new AtomicBoolean();

  @Override
  public ConsumerRecords<Object, Object> onConsume(ConsumerRecords<Object, Object> records) {
    if (!records.isEmpty() && TOLD.compareAndSet(false, true)) {
      Task.tell("first", records.count());
    }
    return records;
  }

  @Override
  public void onCommit(Map<TopicPartition, OffsetAndMetadata> offsets) {}

  @Override
  public void close() {}

  @Override
  public void configure(Map<String, ?> settings) {}
}
