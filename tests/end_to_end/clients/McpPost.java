import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;

import static java.nio.charset.StandardCharsets.UTF_8;

/**
 * Post what the lines of the input say, with one client of the JDK in its defaults: a body, then names and values of
 * headers, between tabs. Print a line for each response: status, version, challenge and body, between tabs.
 *
 * Arguments: the URL, and whether bodies are sent in chunks.
 */
public class McpPost {
    public static void main(String[] arguments) throws Exception {
        URI url = URI.create(arguments[0]);
        boolean isChunked = Boolean.parseBoolean(arguments[1]);
        HttpClient client = HttpClient.newHttpClient();
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] parts = line.split("\t");
            byte[] body = parts[0].getBytes(UTF_8);
            HttpRequest.Builder request = HttpRequest.newBuilder(url).timeout(Duration.ofSeconds(60)).POST(
                isChunked ? BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body))
                          : BodyPublishers.ofByteArray(body));
            for (int index = 1; index < parts.length; index += 2) {
                request.header(parts[index], parts[index + 1]);
            }
            HttpResponse<String> response = client.send(request.build(), BodyHandlers.ofString());
            String challenge = response.headers().firstValue("www-authenticate").orElse("");
            byte[] printed = String.join("\t", Integer.toString(response.statusCode()), response.version().toString(),
                challenge, response.body() + "\n").getBytes(UTF_8);
            System.out.write(printed, 0, printed.length);
        }
        System.out.flush();
    }
}
