// A server as tests/interop/test_servers.py wants it, with Tomcat: an echo at /echo, and a goodbye at /close. Prints
// its port. The argument is a folder for Tomcat's files.
import jakarta.websocket.CloseReason;
import jakarta.websocket.Endpoint;
import jakarta.websocket.EndpointConfig;
import jakarta.websocket.MessageHandler;
import jakarta.websocket.Session;
import jakarta.websocket.server.ServerContainer;
import jakarta.websocket.server.ServerEndpointConfig;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.util.List;
import org.apache.catalina.Context;
import org.apache.catalina.servlets.DefaultServlet;
import org.apache.catalina.startup.Tomcat;
import org.apache.tomcat.websocket.server.WsSci;

public class Server extends Endpoint {
    private interface Sending {
        void send() throws IOException;
    }

    private static void now(Sending sending) {
        try {
            sending.send();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    @Override
    public void onOpen(Session session, EndpointConfig config) {
        session.setMaxTextMessageBufferSize(1 << 20);
        session.setMaxBinaryMessageBufferSize(1 << 20);
        session.addMessageHandler(String.class, text -> now(() -> session.getBasicRemote().sendText(text)));
        session.addMessageHandler(ByteBuffer.class, data -> now(() -> session.getBasicRemote().sendBinary(data)));
        if (session.getRequestURI().getPath().equals("/close")) {
            now(() -> session.close(new CloseReason(CloseReason.CloseCodes.getCloseCode(4001), "that is all")));
        }
    }

    public static void main(String[] arguments) throws Exception {
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(arguments[0]);
        tomcat.setPort(0);
        tomcat.getConnector().setProperty("address", "127.0.0.1");
        Context context = tomcat.addContext("", null);
        Tomcat.addServlet(context, "default", new DefaultServlet());
        context.addServletMappingDecoded("/", "default");
        context.addServletContainerInitializer(new WsSci(), null);
        context.addServletContainerInitializer((classes, servlets) -> {
            ServerContainer container = (ServerContainer) servlets.getAttribute(ServerContainer.class.getName());
            for (String path : List.of("/echo", "/close")) {
                try {
                    container.addEndpoint(ServerEndpointConfig.Builder.create(Server.class, path)
                        .subprotocols(List.of("echo.v1")).build());
                } catch (jakarta.websocket.DeploymentException error) {
                    throw new IllegalStateException(error);
                }
            }
        }, null);
        tomcat.start();
        System.out.println(tomcat.getConnector().getLocalPort());
        tomcat.getServer().await();
    }
}
