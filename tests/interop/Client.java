// A conversation as tests/interop/test_clients.py wants it, with the client of the JDK. Prints what came back.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;

public class Client implements WebSocket.Listener {
    private final BlockingQueue<String> arrived = new LinkedBlockingQueue<>();
    private final StringBuilder text = new StringBuilder();
    // Never completed, or the client would answer a Close by itself, and perhaps not before the program exits.
    private final CompletableFuture<Void> answered = new CompletableFuture<>();

    @Override
    public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
        text.append(data);
        if (last) {
            arrived.add(text.toString());
            text.setLength(0);
        }
        socket.request(1);
        return null;
    }

    @Override
    public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
        arrived.add(code + " " + reason);
        return answered;
    }

    public static void main(String[] arguments) throws Exception {
        HttpClient http = HttpClient.newHttpClient();
        Client echo = new Client();
        WebSocket socket = http.newWebSocketBuilder().buildAsync(URI.create(arguments[0] + "/echo"), echo).join();
        String[] messages = {"Gr\u00fc\u00dfe", "", "x".repeat(1 << 20)};
        for (String message : messages) {
            socket.sendText(message, true).join();
            System.out.println(message.equals(echo.arrived.take()));
        }
        socket.sendText("frag", false).join();
        socket.sendText("mented", true).join();
        System.out.println(echo.arrived.take());
        socket.sendClose(4000, "so long").join();
        System.out.println(echo.arrived.take());
        Client leave = new Client();
        WebSocket other = http.newWebSocketBuilder().buildAsync(URI.create(arguments[0] + "/close"), leave).join();
        System.out.println(leave.arrived.take());
        other.sendClose(4001, "").join();
        System.exit(0);
    }
}
