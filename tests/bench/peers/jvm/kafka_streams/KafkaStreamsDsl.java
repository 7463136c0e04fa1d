package peers;

import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Collection;
import java.util.IntSummaryStatistics;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.atomic.LongAdder;
import java.util.function.BooleanSupplier;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.Suppressed.BufferConfig;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.state.WindowStore;

/**
 * The job in Kafka Streams on two threads, at least once: windows of a partition close with the partition's event time.
 *
 * <p>It deliberately keeps no changelog topic, as tidemill keeps no checkpoint in this job. The records' keys must be
 * the devices: another key would send every record through Kafka once more.
 */
final class KafkaStreamsDsl {
  /** A closed window comes out with the next commit, by default after up to half a minute. */
  private static final Duration CLOSED_WITHIN = Duration.ofSeconds(1);

  private static final int THREADS = 2;

  /** What of a record is read. */
  record Reading(long ts, double temp) {}

  /** A mean that is not finished. */
  record Sum(double total, long count) {
    Sum with(double value) {
      return new Sum(total + value, count + 1);
    }
  }

  private static final ObjectReader JSON =
      new ObjectMapper()
          .configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false)
          .readerFor(Reading.class);

  private static final Serde<Reading> READING =
      Serdes.serdeFrom(
          (topic, reading) -> {
            throw new UnsupportedOperationException("a reading is only read");
          },
          (topic, bytes) -> bytes == null ? null : reading(bytes));

  private static final Serde<Sum> SUM =
      Serdes.serdeFrom(
          (topic, sum) -> ByteBuffer.allocate(16).putDouble(sum.total()).putLong(sum.count()).array(),
          (topic, bytes) -> sum(ByteBuffer.wrap(bytes)));

  private final Task task;
  private final LongAdder seen = new LongAdder();
  private final Collection<Task.Window> closed = new ConcurrentLinkedQueue<>();
  private final AtomicReference<Throwable> failed = new AtomicReference<>();
  private volatile long lastMs;

  private KafkaStreamsDsl(Task task) {
    this.task = task;
  }

  public static void main(String[] arguments) {
    Task.run(arguments, task -> new KafkaStreamsDsl(task).run());
  }

  private void run() throws Exception {
    try (KafkaStreams streams = new KafkaStreams(topology(), settings())) {
      streams.setUncaughtExceptionHandler(this::fail);
      // A part of the topic that changes threads leaves its state behind, which is in no changelog.
      streams.pause();
      streams.start();
      await(() -> isDealt(streams));
      streams.resume();
      Task.tell("first", 0);
      await(() -> seen.sum() >= task.records());
      lastMs = System.currentTimeMillis();
    } // closing, the threads finish the record that they are at, and what is cached comes out
    if (failed.get() != null) {
      throw new IllegalStateException(failed.get());
    }
    Task.tell("last", seen.sum(), lastMs);
    task.write(closed);
  }

  private void await(BooleanSupplier done) throws InterruptedException {
    while (!done.getAsBoolean() && failed.get() == null) {
      Thread.sleep(1);
    }
  }

  /** Whether all threads are in the group, and have as much to do as each other. */
  private static boolean isDealt(KafkaStreams streams) {
    IntSummaryStatistics tasks =
        streams.metadataForLocalThreads().stream()
            .mapToInt(thread -> thread.activeTasks().size())
            .summaryStatistics();
    boolean some = tasks.getSum() > 0 && tasks.getMax() - tasks.getMin() <= 1;
    return some && streams.state() == KafkaStreams.State.RUNNING;
  }

  private StreamThreadExceptionResponse fail(Throwable error) {
    failed.compareAndSet(null, error);
    return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
  }

  private Topology topology() {
    StreamsBuilder builder = new StreamsBuilder();
    TimeWindows windows =
        TimeWindows.ofSizeAndGrace(Duration.ofMillis(task.windowMs()), Duration.ofMillis(task.lateMs()));
    builder.stream(task.topic(), consumed())
        .filter((key, reading) -> keep(reading))
        .groupByKey(Grouped.with(Serdes.String(), READING))
        .windowedBy(windows)
        .aggregate(() -> new Sum(0, 0), (key, reading, sum) -> sum.with(reading.temp()), inMemory())
        .suppress(onceClosed())
        .toStream()
        .foreach(this::collect);
    return builder.build();
  }

  private static Consumed<String, Reading> consumed() {
    return Consumed.with(Serdes.String(), READING)
        .withTimestampExtractor(
            (record, latest) -> record.value() instanceof Reading reading ? reading.ts() : record.timestamp());
  }

  private static Materialized<String, Sum, WindowStore<Bytes, byte[]>> inMemory() {
    return Materialized.<String, Sum, WindowStore<Bytes, byte[]>>as(Materialized.StoreType.IN_MEMORY)
        .withKeySerde(Serdes.String())
        .withValueSerde(SUM)
        .withLoggingDisabled();
  }

  /** Not `EmitStrategy.onWindowClose`, which looks once a second at most, and never after a topic's last record. */
  private static Suppressed<Windowed<?>> onceClosed() {
    return Suppressed.untilWindowCloses(BufferConfig.unbounded().withLoggingDisabled());
  }

  private boolean keep(Reading reading) {
    if (reading == null) {
      return false;
    }
    seen.increment();
    return reading.temp() >= task.least();
  }

  private void collect(Windowed<String> place, Sum sum) {
    lastMs = System.currentTimeMillis();
    double mean = sum.total() / sum.count();
    closed.add(new Task.Window(place.window().start(), place.key(), mean, sum.count()));
  }

  private Properties settings() {
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "bench-" + UUID.randomUUID());
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, task.broker());
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, THREADS);
    settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, CLOSED_WITHIN.toMillis());
    settings.put(StreamsConfig.STATE_DIR_CONFIG, task.out().resolveSibling("state").toString());
    return settings;
  }

  private static Reading reading(byte[] bytes) {
    try {
      return JSON.readValue(bytes);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  private static Sum sum(ByteBuffer bytes) {
    return new Sum(bytes.getDouble(), bytes.getLong());
  }
}
