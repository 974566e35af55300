# Residuals of a mean square: ρ = √(2w/N) (f − y), so that L = ½ Σρ², their Jacobian and second directional
# derivative, block by block of samples.

"Whether this file's derivatives are those of the net: limits of units are not among them."
residuals_known(net) = false
residuals_known(net::Net) = separable(net) && all(l -> isempty(l.chains), net.layers)

"`root ← √(2w/N)` of a block's samples."
residual_weights!(root::Vector{T}, net::Net{T}, block::Block{T}) where {T} =
    (c = 2 / T(net.n_samples); @inbounds for r in 1:block.n
        root[r] = sqrt(c * block.w[r])
    end; root)

"Column o of the residuals; the outputs are in the workspace."
function residual!(e::Vector{T}, ws::Workspace{T}, block::Block{T}, root::Vector{T}, o::Int) where {T}
    F, Y = last(ws.A), block.Y
    @inbounds @simd for r in 1:block.n
        e[r] = root[r] * (F[r, o] - Y[r, o])
    end
    return e
end

"""
    residual_jacobian!(J, ws, net, θ, block, root, o) -> J

Overwrite `J` (rows of the block × P) with the derivatives of output `o`'s residuals; `forward!` of order 1 came before.
"""
function residual_jacobian!(J::Matrix{T}, ws::Workspace{T}, net::Net{T}, θ::Vector{T}, block::Block{T}, root::Vector{T},
                            o::Int) where {T}
    layers, n, L = net.layers, block.n, length(net.layers)
    fill!(ws.Δ[L], 0)
    @inbounds @simd for r in 1:n
        ws.Δ[L][r, o] = root[r] * ws.D[L][r, o]
    end
    for l in L:-1:1
        layer, A, Δ = layers[l], layer_input(ws, block, l), ws.Δ[l]
        l < L && hadamard!(Δ, ws.D[l], Δ, n, layer.width)
        @inbounds for j in 1:layer.width
            column = layer.offset + (j - 1) * layer.fan_in
            for i in 1:layer.fan_in
                @simd for r in 1:n
                    J[r, column+i] = Δ[r, j] * A[r, i]
                end
            end
            layer.bias && @simd for r in 1:n
                J[r, bias_offset(layer)+j] = Δ[r, j]
            end
        end
        l > 1 && pullback!(ws.Δ[l-1], Δ, θ, layer, n)
    end
    return J
end

"""
    second_derivative!(ws, net, θ, v, block) -> ws.Δ̇[end]

Of the outputs, d²f(θ + t v)/dt² at t = 0: Taylor coefficients through the layers, Ḣ = W Ȧ + V A, Ḧ = W Ä + 2 V Ȧ,
Ȧ = f' Ḣ, Ä = f' Ḧ + f'' Ḣ².
"""
function second_derivative!(ws::Workspace{T}, net::Net{T}, θ::Vector{T}, v::Vector{T}, block::Block{T}) where {T}
    layers, n = net.layers, block.n
    forward!(ws, net, θ, block, 2)
    for (l, layer) in enumerate(layers)
        Ḣ, Ḧ, Ä, D, S, k = ws.Ḣ[l], ws.E[l], ws.Δ̇[l], ws.D[l], ws.S[l], layer.width
        linear!(Ḣ, layer_input(ws, block, l), v, layer, n)
        if l > 1                # the input has no derivatives
            add!(Ḣ, linear_dot!(ws.Δ[l], ws.Ȧ[l-1], θ, layer, n), n, k)
            linear_dot!(Ḧ, ws.Δ̇[l-1], θ, layer, n)
            linear_dot!(ws.Δ[l], ws.Ȧ[l-1], v, layer, n)
            @inbounds for j in 1:k
                @lanes r n Ä[r, j] = muladd(D[r, j], muladd(T(2), ws.Δ[l][r, j], Ḧ[r, j]), S[r, j] * Ḣ[r, j] * Ḣ[r, j])
            end
        else
            @inbounds for j in 1:k
                @lanes r n Ä[r, j] = S[r, j] * Ḣ[r, j] * Ḣ[r, j]
            end
        end
        hadamard!(ws.Ȧ[l], D, Ḣ, n, k)
    end
    return last(ws.Δ̇)
end

"Mean square of the targets."
target_scale(net::Net) = sum(b -> sum(b.w .* sum(abs2, b.Y; dims=2)), net.blocks) / net.n_samples
target_scale(r::ConstrainedNet) = target_scale(r.net)
