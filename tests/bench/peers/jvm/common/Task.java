package peers;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collection;
import java.util.Locale;
import java.util.stream.Stream;

/**
 * What each side on the JVM is told, tells while it runs, and leaves behind: `task.py` once more, for Java.
 *
 * <p>It deliberately has no defaults: `program.py` gives all that both languages must agree on.
 */
public record Task(
    String broker, String topic, long records, long lateMs, Path out, long windowMs, double least) {

  /** A closed window. */
  public record Window(long startMs, String device, double mean, long count) {}

  /** A side. */
  public interface Side {
    void run(Task task) throws Exception;
  }

  /** Runs a side. Where it fails its first cause is the last that is said, and no thread of it holds the process. */
  public static void run(String[] arguments, Side side) {
    try {
      side.run(of(arguments));
    } catch (Throwable failed) {
      failed.printStackTrace();
      System.err.println(cause(failed));
      Runtime.getRuntime().halt(1);
    }
  }

  private static Task of(String[] of) {
    return new Task(
        of[0],
        of[1],
        Long.parseLong(of[2]),
        Long.parseLong(of[3]),
        Path.of(of[4]),
        Long.parseLong(of[5]),
        Double.parseDouble(of[6]));
  }

  private static Throwable cause(Throwable failed) {
    return failed.getCause() == null ? failed : cause(failed.getCause());
  }

  /** Says that a moment is here, and how many records are behind it. */
  public static void tell(String moment, long records) {
    tell(moment, records, System.currentTimeMillis());
  }

  /** Says when a moment came. */
  public static void tell(String moment, long records, long atMs) {
    String line = "{\"moment\": \"%s\", \"at\": %.3f, \"records\": %d}%n";
    System.out.printf(Locale.ROOT, line, moment, atMs / 1000.0, records);
  }

  /** Leaves the closed windows as CSV. */
  public void write(Collection<Window> windows) throws IOException {
    Stream<String> rows =
        windows.stream().map(w -> w.startMs() + "," + w.device() + "," + w.mean() + "," + w.count());
    Path file = out.resolveSibling(out.getFileName() + ".csv");
    Files.write(file, Stream.concat(Stream.of("window_start,device,mean,n"), rows).toList());
  }
}
