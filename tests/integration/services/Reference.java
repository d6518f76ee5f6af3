import com.typesafe.config.ConfigException;
import com.typesafe.config.ConfigFactory;
import com.typesafe.config.ConfigList;
import com.typesafe.config.ConfigObject;
import com.typesafe.config.ConfigUtil;
import com.typesafe.config.ConfigValue;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.stream.Collectors;

/**
 * What the reference implementation of HOCON reads in files.
 *
 * <p>For each file name on standard input it writes a line of JSON: the resolved
 * object, with every scalar but null as the text that it was written as, or, for a
 * file that is refused, the reason as a text.
 */
public class Reference {
  public static void main(String[] arguments) throws Exception {
    var names = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    var answers = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    for (var name = names.readLine(); name != null; name = names.readLine()) {
      answers.println(answer(new File(name)));
    }
  }

  private static String answer(File file) {
    try {
      return json(ConfigFactory.parseFile(file).resolve().root());
    } catch (ConfigException refusal) {
      return ConfigUtil.quoteString(refusal.toString());
    }
  }

  private static String json(ConfigValue value) {
    switch (value.valueType()) {
      case OBJECT:
        return ((ConfigObject) value)
            .entrySet().stream()
                .map(entry -> ConfigUtil.quoteString(entry.getKey()) + ":" + json(entry.getValue()))
                .collect(Collectors.joining(",", "{", "}"));
      case LIST:
        return ((ConfigList) value)
            .stream().map(Reference::json).collect(Collectors.joining(",", "[", "]"));
      case NULL:
        return "null";
      default:
        return ConfigUtil.quoteString(value.atKey("it").getString("it"));
    }
  }
}
