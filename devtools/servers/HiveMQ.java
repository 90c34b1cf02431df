import com.hivemq.embedded.EmbeddedExtension;
import com.hivemq.embedded.EmbeddedHiveMQ;
import com.hivemq.extension.sdk.api.ExtensionMain;
import com.hivemq.extension.sdk.api.auth.EnhancedAuthenticator;
import com.hivemq.extension.sdk.api.auth.parameter.EnhancedAuthConnectInput;
import com.hivemq.extension.sdk.api.auth.parameter.EnhancedAuthInput;
import com.hivemq.extension.sdk.api.auth.parameter.EnhancedAuthOutput;
import com.hivemq.extension.sdk.api.client.parameter.Listener;
import com.hivemq.extension.sdk.api.packets.disconnect.DisconnectReasonCode;
import com.hivemq.extension.sdk.api.packets.general.DisconnectedReasonCode;
import com.hivemq.extension.sdk.api.parameter.ExtensionStartInput;
import com.hivemq.extension.sdk.api.parameter.ExtensionStartOutput;
import com.hivemq.extension.sdk.api.parameter.ExtensionStopInput;
import com.hivemq.extension.sdk.api.parameter.ExtensionStopOutput;
import com.hivemq.extension.sdk.api.services.Services;
import com.nimbusds.jose.JOSEException;
import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.AsymmetricJWK;
import com.nimbusds.jose.jwk.JWK;
import com.nimbusds.jose.jwk.RSAKey;
import com.nimbusds.jose.proc.BadJOSEException;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.Key;
import java.text.ParseException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;

/**
 * HiveMQ Community Edition with an extension that accepts JWTs for the audience "rabbitmq": as password, by the
 * authentication method OAUTH2-JWT, or on its listener "username" as user name. On its listener "behind a gateway" it
 * accepts every client. When a token expires, it ends the connection.
 *
 * <p>java -cp 'JARS/*' HiveMQ.java FOLDER PUBLIC-KEY.pem..., with a config.xml in the folder; prints "ready".
 */
class Main {

    public static void main(String[] arguments) throws Exception {
        Map<JWSAlgorithm, Key> keys = new HashMap<>();
        for (int i = 1; i < arguments.length; i++) {
            var key = JWK.parseFromPEMEncodedObjects(Files.readString(Path.of(arguments[i])));
            var algorithm = key instanceof RSAKey ? JWSAlgorithm.RS256 : JWSAlgorithm.ES256;
            keys.put(algorithm, ((AsymmetricJWK) key).toPublicKey());
        }
        var folder = Path.of(arguments[0]);
        var tokens = EmbeddedExtension.builder()
                .withId("tokens")
                .withName("Tokens")
                .withVersion("1")
                .withExtensionMain(new Tokens(keys))
                .build();
        var broker = EmbeddedHiveMQ.builder()
                .withConfigurationFolder(folder)
                .withDataFolder(folder.resolve("data"))
                .withExtensionsFolder(Files.createDirectories(folder.resolve("extensions")))
                .withEmbeddedExtension(tokens)
                .build();
        broker.start().join();
        System.out.println("ready");
    }
}

class Tokens implements ExtensionMain, EnhancedAuthenticator {

    private final DefaultJWTProcessor<SecurityContext> verifier = new DefaultJWTProcessor<>();

    /** The token that each client was accepted with last: the expiry of an earlier one has no effect. */
    private final Map<String, JWTClaimsSet> current = new ConcurrentHashMap<>();

    Tokens(Map<JWSAlgorithm, Key> keys) {
        var claims = new DefaultJWTClaimsVerifier<>("rabbitmq", null, Set.of("exp"));
        claims.setMaxClockSkew(0);
        verifier.setJWTClaimsSetVerifier(claims);
        verifier.setJWSTypeVerifier(
                new DefaultJOSEObjectTypeVerifier<>(JOSEObjectType.JWT, new JOSEObjectType("at+jwt"))); // RFC 9068
        verifier.setJWSKeySelector((header, context) -> {
            var key = keys.get(header.getAlgorithm());
            return key == null ? List.of() : List.of(key);
        });
    }

    @Override
    public void extensionStart(ExtensionStartInput input, ExtensionStartOutput output) {
        Services.securityRegistry().setEnhancedAuthenticatorProvider(client -> this);
    }

    @Override
    public void extensionStop(ExtensionStopInput input, ExtensionStopOutput output) {}

    @Override
    public void onConnect(EnhancedAuthConnectInput input, EnhancedAuthOutput output) {
        var connect = input.getConnectPacket();
        var client = connect.getClientId();
        var listener = input.getConnectionInformation().getListener().map(Listener::getName).orElse("");
        var method = connect.getAuthenticationMethod();
        if (listener.equals("behind a gateway")) {
            System.out.println("accepted " + client);
            output.authenticateSuccessfully();
        } else if (method.isEmpty() && listener.equals("username")) {
            decide(client, connect.getUserName().orElse(""), output);
        } else if (method.isEmpty()) {
            decide(client, text(connect.getPassword().orElse(ByteBuffer.allocate(0))), output);
        } else if (method.get().equals("OAUTH2-JWT")) {
            decide(client, text(connect.getAuthenticationData().orElse(ByteBuffer.allocate(0))), output);
        } else {
            output.failAuthentication(DisconnectedReasonCode.BAD_AUTHENTICATION_METHOD);
        }
    }

    @Override
    public void onAuth(EnhancedAuthInput input, EnhancedAuthOutput output) {
        var data = input.getAuthPacket().getAuthenticationData().orElse(ByteBuffer.allocate(0));
        decide(input.getClientInformation().getClientId(), text(data), output);
    }

    private static String text(ByteBuffer data) {
        return StandardCharsets.UTF_8.decode(data).toString();
    }

    private void decide(String client, String token, EnhancedAuthOutput output) {
        try {
            var claims = verifier.process(token, null);
            current.put(client, claims);
            var left = claims.getExpirationTime().getTime() - System.currentTimeMillis();
            Services.extensionExecutorService().schedule(() -> end(client, claims), left, TimeUnit.MILLISECONDS);
            System.out.println("accepted " + client);
            output.authenticateSuccessfully();
        } catch (BadJOSEException | JOSEException | ParseException error) {
            System.out.println("refused " + client + ": " + error.getMessage());
            output.failAuthentication(DisconnectedReasonCode.NOT_AUTHORIZED);
        }
    }

    private void end(String client, JWTClaimsSet claims) {
        if (current.get(client) == claims) {
            Services.clientService()
                    .disconnectClient(client, false, DisconnectReasonCode.MAXIMUM_CONNECT_TIME, "the token has ended");
        }
    }
}
