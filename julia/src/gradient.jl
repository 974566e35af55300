layer_input(ws::Workspace, block::Block, l::Int) = l == 1 ? block.X : ws.A[l-1]

"Activations of all layers for one block; f' too for `order` 1, f'' too for `order` 2."
function forward!(ws::Workspace, layers, θ, block::Block, order::Int)
    n = block.n
    for (l, layer) in enumerate(layers)
        A = linear!(ws.A[l], layer_input(ws, block, l), θ, layer, n)
        if order == 0
            activate!(layer.activation, A, n, layer.width)
        elseif order == 1
            activate!(layer.activation, A, ws.D[l], n, layer.width)
        else
            activate!(layer.activation, A, ws.D[l], ws.S[l], n, layer.width)
        end
    end
    return nothing
end

"Σᵢ wᵢ ‖f(xᵢ) − yᵢ‖² over one block, after `forward!`"
function block_loss(ws::Workspace{T}, block::Block{T}) where {T}
    F, Y, w = last(ws.A), block.Y, block.w
    s = zero(T)
    @inbounds for o in 1:size(Y, 2)
        @simd for r in 1:block.n
            d = F[r, o] - Y[r, o]
            s = muladd(w[r] * d, d, s)
        end
    end
    return s
end

"E of the output layer: `scale` times the derivative of `block_loss` by the outputs. Returns the block's loss."
function block_loss!(E::Matrix{T}, ws::Workspace{T}, block::Block{T}, scale::T) where {T}
    F, Y, w = last(ws.A), block.Y, block.w
    c = 2scale
    s = zero(T)
    @inbounds for o in 1:size(Y, 2)
        @simd for r in 1:block.n
            d = F[r, o] - Y[r, o]
            e = w[r] * d
            s = muladd(e, d, s)
            E[r, o] = c * e
        end
    end
    return s
end

"""
    loss(net, θ) -> L(θ)

L(θ) = (1/N) Σᵢ wᵢ ‖f(xᵢ; θ) − yᵢ‖², the mean over samples.
"""
function loss(net::Net{T}, θ::Vector{T}) where {T}
    check_params(net, θ)
    s = zero(T)
    for block in net.blocks
        heartbeat(net.monitor)
        forward!(net.workspace, net.layers, θ, block, 0)
        s += block_loss(net.workspace, block)
    end
    return s / net.n_samples
end

"""
    value_and_gradient!(g, net, θ) -> L(θ)

Loss and gradient in one pass; `g` (length P) is overwritten with ∇L.
"""
function value_and_gradient!(g::Vector{T}, net::Net{T}, θ::Vector{T}) where {T}
    check_params(net, θ)
    check_params(net, g)
    ws, layers = net.workspace, net.layers
    fill!(g, 0)
    s = zero(T)
    scale = one(T) / net.n_samples
    for block in net.blocks
        heartbeat(net.monitor)
        n = block.n
        forward!(ws, layers, θ, block, 1)
        s += block_loss!(last(ws.Δ), ws, block, scale)
        for l in length(layers):-1:1
            hadamard!(ws.Δ[l], ws.D[l], ws.Δ[l], n, layers[l].width)
            accumulate!(g, ws.Δ[l], layer_input(ws, block, l), layers[l], n)
            l > 1 && pullback!(ws.Δ[l-1], ws.Δ[l], θ, layers[l], n)
        end
    end
    return s / net.n_samples
end

"""
    gradient!(g, net, θ) -> g

Overwrite `g` (length P) with ∇L(θ).
"""
function gradient!(g, net::AbstractNet, θ)
    value_and_gradient!(g, net, θ)
    return g
end

"""
    gradient(net, θ) -> ∇L(θ)

    julia> net = Net(layers = ((1, identity, false),), input = [1.0 2.0], target = [2.0 4.0]);

    julia> gradient(net, [1.0])         # L = ((θ - 2)² + (2θ - 4)²)/2
    1-element Array{Float64,1}:
     -5.0
"""
gradient(net::AbstractNet, θ) = gradient!(similar(θ), net, θ)

"""
    predict(net, θ, X) -> outputs

Outputs (O×M) for other inputs `X` (D×M).
"""
function predict(net::Net{T}, θ::Vector{T}, X::AbstractMatrix) where {T}
    check_params(net, θ)
    size(X, 1) == n_features(net) ||
        throw(DimensionMismatch("this net takes $(n_features(net)) features, the input has $(size(X, 1))"))
    out = Matrix{T}(undef, n_outputs(net), size(X, 2))
    ws = Workspace{T}(net.layers, BLOCK)
    for i in 1:BLOCK:size(X, 2)
        samples = i:min(i + BLOCK - 1, size(X, 2))
        block = Block{T}(X, zeros(T, 0, size(X, 2)), nothing, samples)
        forward!(ws, net.layers, θ, block, 0)
        out[:, samples] = transpose(last(ws.A)[1:length(samples), 1:n_outputs(net)])
    end
    return out
end

"""
    predict(net, θ) -> outputs (O×N) on the net's own data
"""
function predict(net::Net{T}, θ::Vector{T}) where {T}
    check_params(net, θ)
    out = Matrix{T}(undef, n_outputs(net), n_samples(net))
    i = 0
    for block in net.blocks
        heartbeat(net.monitor)
        forward!(net.workspace, net.layers, θ, block, 0)
        m = min(block.n, n_samples(net) - i)
        out[:, i+1:i+m] = transpose(last(net.workspace.A)[1:m, 1:n_outputs(net)])
        i += m
    end
    return out
end
