Feature: Controller and worker prove who they are
  Neither side says a word to a stranger, and there is no flag to turn that off.

  @F2 @system
  Scenario: Without a client certificate the TLS session ends
    Given a running node
    When a stranger without a certificate connects to the listener for workers
    Then the TLS session ends before any answer
    And no worker was stored

  @F2 @system
  Scenario: A certificate of another authority is worth nothing
    Given a running node
    When a stranger with a certificate of its own authority connects to the listener for workers
    Then the TLS session ends before any answer
    And no worker was stored

  @F2 @system
  Scenario: A worker refuses a controller that it cannot trust, and says so
    Given a running node
    And a second node with an authority of its own
    When a worker of the first node is pointed at the second
    Then it refuses with "untrusted_peer"
    And the second node stored no worker of the first
