package peers;

import java.time.Duration;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;
import org.apache.flink.types.Row;

/**
 * The job in Flink SQL: a cluster within the process, on two threads, which reads what is there and closes all windows.
 *
 * <p>It deliberately takes no checkpoints, as tidemill takes none in this job.
 */
final class FlinkSql {
  // A watermark says that no more comes at its own time, so that it stays a millisecond behind the latest.
  private static final String READINGS =
      """
      CREATE TABLE readings (
        device STRING, ts BIGINT, temp DOUBLE,
        happened AS TO_TIMESTAMP_LTZ(ts, 3),
        WATERMARK FOR happened AS happened - INTERVAL '%s' DAY TO SECOND
      ) WITH (
        'connector' = 'kafka', 'format' = 'json', 'topic' = '%s', 'properties.bootstrap.servers' = '%s',
        'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset',
        'properties.interceptor.classes' = '%s'
      )
      """;
  private static final String MEANS =
      """
      SELECT window_start, device, AVG(temp), COUNT(*)
      FROM TUMBLE(TABLE readings, DESCRIPTOR(happened), INTERVAL '%s' DAY TO SECOND)
      WHERE temp >= %s
      GROUP BY window_start, window_end, device
      """;

  public static void main(String[] arguments) {
    Task.run(arguments, FlinkSql::run);
  }

  private static void run(Task task) throws Exception {
    TableEnvironment tables = TableEnvironment.create(settings());
    String name = FirstRecords.class.getName();
    tables.executeSql(READINGS.formatted(interval(task.lateMs() + 1), task.topic(), task.broker(), name));
    String means = MEANS.formatted(interval(task.windowMs()), task.least());
    List<Task.Window> closed = new ArrayList<>();
    TableResult result = tables.executeSql(means);
    result.collect().forEachRemaining(row -> closed.add(window(row)));
    Task.tell("last", task.records());
    task.write(closed);
  }

  private static EnvironmentSettings settings() {
    Configuration settings = new Configuration();
    settings.setString("parallelism.default", "2");
    settings.setString("pipeline.object-reuse", "true"); // by default operators hand each other copies
    settings.setString("table.local-time-zone", "UTC");
    return EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(settings).build();
  }

  private static String interval(long ms) {
    Duration time = Duration.ofMillis(ms);
    return "%d %02d:%02d:%02d.%03d"
        .formatted(
            time.toDaysPart(),
            time.toHoursPart(),
            time.toMinutesPart(),
            time.toSecondsPart(),
            time.toMillisPart());
  }

  private static Task.Window window(Row row) {
    LocalDateTime start = row.getFieldAs(0);
    long startMs = start.toInstant(ZoneOffset.UTC).toEpochMilli();
    return new Task.Window(startMs, row.getFieldAs(1), row.<Double>getFieldAs(2), row.<Long>getFieldAs(3));
  }
}
